"""DPO: learn to prefer chosen to rejected answers (Rafailov et al. 2023, arXiv:2305.18290)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_api.memory import Footprint
from finetune_api.plan import Plan
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.gpu.precision import Precision
from finetune_trainer.methods import batch_check, preference
from finetune_trainer.methods.common_settings import common
from finetune_trainer.methods.interface import LoadedModel, Predictions, Progress, Score
from finetune_trainer.methods.preference import PairMethod, PreferenceRow
from finetune_trainer.methods.step_callback import callback


def settings(
    plan: Plan,
    precision: Precision,
    total_steps: int,
    folder: Path,
    memory_settings: MemorySettings,
    processes: int = 1,
) -> dict[str, Any]:
    """Return the arguments of DPOConfig."""
    return common(plan, precision, total_steps, folder, memory_settings, processes) | {
        "beta": preference.of(plan).beta,
        "loss_type": ["sigmoid"],
        "loss_weights": None,
        "ld_alpha": None,
        "f_divergence_type": "reverse_kl",
        "label_smoothing": 0.0,
        "use_weighting": False,
        "disable_dropout": preference.dropout_disabled(plan),
        "truncation_mode": "keep_start",
        "padding_free": False,
        "pad_to_multiple_of": None,
        "precompute_ref_log_probs": False,
        "sync_ref_model": False,
        "activation_offloading": False,
        "remove_unused_columns": True,
    }


def score(found: Sequence[float], before: Sequence[float], beta: float) -> Score:
    """Return the score of one pair: equation 7 of arXiv:2305.18290. `found`: chosen, rejected."""
    good, bad = (beta * (now - was) for now, was in zip(found, before, strict=True))
    return Score(-preference.log_sigmoid(good - bad), good, bad, tuple(found))


class DPO(PairMethod):
    """See TrainingMethod."""

    footprint = Footprint(sequences=2)
    compared_with_reference = True

    def score(
        self, plan: Plan, rows: Sequence[PreferenceRow], predictions: Predictions, base: Sequence[Score] | None
    ) -> list[Score]:
        """See TrainingMethod."""
        found = predictions.log_probabilities([row.answers for row in rows])
        before = found if base is None else [known.log_probabilities for known in base]
        beta = preference.of(plan).beta
        return [score(now, was, beta) for now, was in zip(found, before, strict=True)]

    def build(
        self,
        plan: Plan,
        loaded: LoadedModel,
        rows: Sequence[PreferenceRow],
        steps: Sequence[Sequence[int]],
        progress: Progress,
        folder: Path,
        memory_settings: MemorySettings,
        processes: int,
    ) -> Any:
        """See TrainingMethod."""
        from trl import DPOConfig, DPOTrainer

        class Tokenized(DPOTrainer):  # type: ignore[misc]
            """Takes the rows as they are."""

            def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
                return dataset

            def rows_of(self, inputs: Any) -> int:
                return len(inputs["input_ids"]) // 2

        trainer = preference.weighted(Tokenized, [len(step) for step in steps])(
            model=loaded.model,
            processing_class=loaded.tokenizer,
            args=DPOConfig(**settings(plan, loaded.precision, len(steps), folder, memory_settings, processes)),
            train_dataset=preference.dataset(rows).select([index for step in steps for index in step]),
            callbacks=[callback(progress), preference.drop_reference()],
        )
        preference.set_reference(loaded.model, continued=plan.model.adapter is not None)
        return trainer

    def check_batches(self, trainer: Any, rows: Sequence[PreferenceRow], step: Sequence[int]) -> None:
        """See TrainingMethod."""
        seen: list[tuple[list[list[int]], list[list[int]]]] = []
        for batch in batch_check.of_step(trainer, len(step)):
            ids = batch["input_ids"].tolist()
            labels = batch_check.labels_of(batch["input_ids"], batch["completion_mask"])
            # The first half of a batch is the chosen answers, the second one the rejected ones.
            half = len(ids) // 2
            seen += [([ids[i], ids[half + i]], [labels[i], labels[half + i]]) for i in range(half)]
        batch_check.check_count(len(seen), len(step))
        for (ids, labels), index in zip(seen, step, strict=True):
            row = rows[index]
            batch_check.check_sequence(row.sequence, ids[0], labels[0])
            batch_check.check_sequence(row.rejected, ids[1], labels[1])
