"""ORPO: the plain loss on the chosen answer and a preference at once (Hong et al. 2024, arXiv:2403.07691)."""

import math
import os
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
    """Return the arguments of ORPOConfig."""
    return common(plan, precision, total_steps, folder, memory_settings, processes) | {
        "beta": preference.of(plan).beta,
        "disable_dropout": preference.dropout_disabled(plan),
        "max_completion_length": None,
        "padding_value": None,
        "generate_during_eval": False,
        "is_encoder_decoder": False,
        # Its collator reads columns that no model takes.
        "remove_unused_columns": False,
    }


def score(row: PreferenceRow, found: Sequence[float], beta: float) -> Score:
    """Return the score of one pair: equations 6 and 7 of arXiv:2403.07691. `found`: chosen, rejected."""
    chosen, rejected = found[0] / len(row.chosen_ids), found[1] / len(row.rejected_ids)
    good, bad = _log_odds(chosen), _log_odds(rejected)
    return Score(-chosen - beta * preference.log_sigmoid(good - bad), beta * good, beta * bad, tuple(found))


def columns(feature: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of ORPOTrainer's collator for one row."""
    prompt = list(feature["prompt_ids"])
    made: dict[str, Any] = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
    for side in ("chosen", "rejected"):
        answer = list(feature[f"{side}_ids"])
        made |= {
            f"{side}_input_ids": prompt + answer,
            f"{side}_attention_mask": [1] * (len(prompt) + len(answer)),
            f"{side}_labels": [batch_check.IGNORED] * len(prompt) + answer,
        }
    return made


class ORPO(PairMethod):
    """See TrainingMethod."""

    footprint = Footprint(sequences=2, all_logits=True)

    def score(
        self,
        plan: Plan,
        rows: Sequence[PreferenceRow],
        predictions: Predictions,
        base: Sequence[Score] | None,  # noqa: ARG002
    ) -> list[Score]:
        """See TrainingMethod."""
        found = predictions.log_probabilities([row.answers for row in rows])
        beta = preference.of(plan).beta
        return [score(row, sums, beta) for row, sums in zip(rows, found, strict=True)]

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
        # The pinned version is the one that is tested; that a later one may differ is nothing to warn a user of.
        os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        class Tokenized(ORPOTrainer):  # type: ignore[misc]
            """Takes the rows as they are, and each row's plain loss as the paper has it."""

            def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:  # noqa: ARG002
                return columns(feature)

            def concatenated_forward(self, model: Any, batch: Any) -> Any:
                chosen, rejected, chosen_logits, rejected_logits, _, *rest = super().concatenated_forward(model, batch)
                # TRL's mean is over all tokens of the micro-batch, the question's among them: it changes with the
                # micro-batch. The paper's equation 2 is a row's mean over its answer.
                return (chosen, rejected, chosen_logits, rejected_logits, -chosen.mean(), *rest)

            def rows_of(self, inputs: Any) -> int:
                return len(inputs["chosen_input_ids"])

        trainer = preference.weighted(Tokenized, [len(step) for step in steps])(
            model=loaded.model,
            processing_class=loaded.tokenizer,
            args=ORPOConfig(**settings(plan, loaded.precision, len(steps), folder, memory_settings, processes)),
            train_dataset=preference.dataset(rows),
            callbacks=[callback(progress)],
        )
        names = ["prompt_ids", "chosen_ids", "rejected_ids"]
        trainer.train_dataset = trainer.train_dataset.remove_columns(names).select([i for step in steps for i in step])
        return trainer

    def check_batches(self, trainer: Any, rows: Sequence[PreferenceRow], step: Sequence[int]) -> None:
        """See TrainingMethod."""
        names = ("chosen_input_ids", "chosen_labels", "rejected_input_ids", "rejected_labels")
        seen: list[tuple[list[int], ...]] = []
        for batch in batch_check.of_step(trainer, len(step)):
            seen += zip(*(batch[name].tolist() for name in names), strict=True)
        batch_check.check_count(len(seen), len(step))
        for (chosen, chosen_labels, rejected, rejected_labels), index in zip(seen, step, strict=True):
            row = rows[index]
            batch_check.check_sequence(row.sequence, chosen, chosen_labels)
            batch_check.check_sequence(row.rejected, rejected, rejected_labels)


def _log_odds(log_probability: float) -> float:
    """Return log(p / (1 - p)); a probability that rounds to 1 counts as the largest number below it."""
    log_probability = min(log_probability, -1e-12)
    return log_probability - math.log(-math.expm1(log_probability))
