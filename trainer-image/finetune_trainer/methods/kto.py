"""KTO: learn from answers marked good or bad (Ethayarajh et al. 2024, arXiv:2402.01306)."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.memory import Footprint
from finetune_api.plan import Plan, PreferencePlan
from finetune_trainer.errors import GuardError
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.gpu.precision import Precision
from finetune_trainer.methods import batch_check, preference
from finetune_trainer.methods.common_settings import common
from finetune_trainer.methods.interface import (
    Example,
    LoadedModel,
    Predictions,
    Progress,
    Rendering,
    Score,
    TrainingMethod,
)
from finetune_trainer.methods.rows import Row, TokenSequence, question_too_long
from finetune_trainer.methods.step_callback import callback


@dataclass(frozen=True)
class BinaryRow(Row):
    """A question with an answer that is good (`label`) or bad, to its stop token unless truncated."""

    row_id: int
    prompt_ids: list[int]
    completion_ids: list[int]
    label: bool
    truncated: bool = False

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.prompt_ids) + len(self.completion_ids)

    @property
    def supervised(self) -> int:
        """Tokens of the answer."""
        return len(self.completion_ids)

    @property
    def sequence(self) -> TokenSequence:
        """The question with its answer."""
        return TokenSequence.of_answer(self.row_id, self.prompt_ids, self.completion_ids)

    @property
    def is_good(self) -> bool:
        """See Row."""
        return self.label

    def ends_on(self, stops: Collection[int]) -> bool:
        """See Row."""
        return self.completion_ids[-1] in stops


def settings(
    plan: Plan,
    precision: Precision,
    total_steps: int,
    folder: Path,
    memory_settings: MemorySettings,
    processes: int = 1,
) -> dict[str, Any]:
    """Return the arguments of KTOConfig."""
    chosen = preference.of(plan)
    return common(plan, precision, total_steps, folder, memory_settings, processes) | {
        "beta": chosen.beta,
        "desirable_weight": chosen.desirable_weight,
        "undesirable_weight": chosen.undesirable_weight,
        "loss_type": "kto",
        "disable_dropout": preference.dropout_disabled(plan),
        "pad_to_multiple_of": None,
        "precompute_ref_log_probs": False,
        "sync_ref_model": False,
        "activation_offloading": False,
        "remove_unused_columns": True,
    }


def mismatched(rows: Sequence[BinaryRow]) -> list[tuple[list[int], list[int]]]:
    """Return each row's prompt with the answer of the row before it: what the KL term is estimated on."""
    return [(row.prompt_ids, rows[i - 1].completion_ids) for i, row in enumerate(rows)]


def scores(
    rows: Sequence[BinaryRow],
    sums: Sequence[Sequence[float]],
    before: Sequence[Sequence[float]],
    settings: PreferencePlan,
) -> list[Score]:
    """Return the score of each row: the loss of arXiv:2402.01306, its KL term over all rows.

    `sums`: of each row's own answer, and of the answer of the row before it.
    """
    drift = [now[1] - was[1] for now, was in zip(sums, before, strict=True)]
    divergence = max(0.0, sum(drift) / len(drift)) if drift else 0.0
    beta = settings.beta
    found = []
    for row, now, was in zip(rows, sums, before, strict=True):
        ratio = now[0] - was[0]
        reward = beta * ratio
        if row.label:
            loss = settings.desirable_weight * _sigmoid(beta * (divergence - ratio))
            found.append(Score(loss, good_reward=reward, log_probabilities=tuple(now)))
        else:
            loss = settings.undesirable_weight * _sigmoid(beta * (ratio - divergence))
            found.append(Score(loss, bad_reward=reward, log_probabilities=tuple(now)))
    return found


class KTO(TrainingMethod[BinaryRow]):
    """See TrainingMethod."""

    formats = ("Binary",)
    footprint = Footprint(all_logits=True)
    compared_with_reference = True
    row = BinaryRow

    def columns(self) -> list[tuple[str, Any]]:
        """See TrainingMethod."""
        import pyarrow as pa

        ids = pa.list_(pa.int32())
        return [("prompt_ids", ids), ("completion_ids", ids), ("label", pa.bool_())]

    def encode(self, example: Example, rendering: Rendering) -> BinaryRow | str:
        """Return the last answer, cut to the room that the question leaves, with its label."""
        if example.label is None:
            raise GuardError("a row without a label was to be encoded for KTO")
        prompt, answer = rendering.last_answer()
        room = rendering.maximum - len(prompt)
        if room <= 0:
            return question_too_long(len(prompt), rendering.maximum)
        return BinaryRow(example.row_id, prompt, answer[:room], example.label, len(answer) > room)

    def score(
        self, plan: Plan, rows: Sequence[BinaryRow], predictions: Predictions, base: Sequence[Score] | None
    ) -> list[Score]:
        """See TrainingMethod."""
        pairs = zip([(row.prompt_ids, row.completion_ids) for row in rows], mismatched(rows), strict=True)
        found = predictions.log_probabilities([list(pair) for pair in pairs])
        before = found if base is None else [known.log_probabilities for known in base]
        return scores(rows, found, before, preference.of(plan))

    def build(
        self,
        plan: Plan,
        loaded: LoadedModel,
        rows: Sequence[BinaryRow],
        steps: Sequence[Sequence[int]],
        progress: Progress,
        folder: Path,
        memory_settings: MemorySettings,
        processes: int,
    ) -> Any:
        """See TrainingMethod."""
        import torch
        from datasets import Dataset
        from trl import KTOConfig, KTOTrainer

        class Tokenized(KTOTrainer):  # type: ignore[misc]
            """Takes the rows as they are, and estimates the KL term once for a whole optimizer step.

            TRL estimates it on each micro-batch, whose size would then change the result.
            """

            def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
                return dataset

            def rows_of(self, inputs: Any) -> int:
                return len(inputs["input_ids"])

            def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
                # TRL asks for the policy's first, then for the reference's.
                self._kl_of = iter(("policy", "reference"))
                return super()._compute_loss(model, inputs, return_outputs)

            def _compute_kl_logps(self, model: Any, batch: Any) -> Any:  # noqa: ARG002
                """Return the mean over the step's mismatched pairs. Shape: (1,)."""
                of, step = next(self._kl_of), self.state.global_step
                known: dict[tuple[str, int], Any] = getattr(self, "_kl_known", {})
                if (of, step) not in known:
                    found = [
                        super(Tokenized, self)._compute_kl_logps(model, self._prepare_inputs(part))
                        for part in self._kl_batches(step)
                    ]
                    known = {key: value for key, value in known.items() if key[1] == step}
                    self._kl_known = known | {(of, step): torch.cat(found).mean(dim=0, keepdim=True)}
                return self._kl_known[of, step]

            def _kl_batches(self, step: int) -> Iterator[Any]:
                pairs = mismatched([rows[index] for index in steps[step]])
                micro = self.args.per_device_train_batch_size
                for start in range(0, len(pairs), micro):
                    yield self.data_collator(
                        [
                            {"prompt_ids": prompt, "completion_ids": answer, "KL_completion_ids": answer, "label": True}
                            for prompt, answer in pairs[start : start + micro]
                        ]
                    )

        dataset = Dataset.from_dict(
            {
                "prompt_ids": [r.prompt_ids for r in rows],
                "completion_ids": [r.completion_ids for r in rows],
                "label": [r.label for r in rows],
            }
        )
        args = KTOConfig(**settings(plan, loaded.precision, len(steps), folder, memory_settings, processes))
        # TRL refuses a micro-batch of 1, because its own KL term would be meaningless there.
        args.per_device_train_batch_size = max(2, memory_settings.micro_batch_size)
        trainer = preference.weighted(Tokenized, [len(step) for step in steps])(
            model=loaded.model,
            processing_class=loaded.tokenizer,
            args=args,
            train_dataset=dataset.select([index for step in steps for index in step]),
            callbacks=[callback(progress), preference.drop_reference()],
        )
        trainer.args.per_device_train_batch_size = trainer._train_batch_size = memory_settings.micro_batch_size
        preference.set_reference(loaded.model, continued=plan.model.adapter is not None)
        return trainer

    def check_batches(self, trainer: Any, rows: Sequence[BinaryRow], step: Sequence[int]) -> None:
        """See TrainingMethod."""
        seen: list[tuple[list[int], list[int], bool]] = []
        for batch in batch_check.of_step(trainer, len(step)):
            found = batch_check.labels_of(batch["input_ids"], batch["completion_mask"])
            seen += zip(batch["input_ids"].tolist(), found, batch["label"].tolist(), strict=True)
        batch_check.check_count(len(seen), len(step))
        for (ids, labels, label), index in zip(seen, step, strict=True):
            row = rows[index]
            batch_check.check_sequence(row.sequence, ids, labels)
            if bool(label) != row.label:
                raise GuardError(f"row {row.row_id} reaches the model with the other label")


def _sigmoid(value: float) -> float:
    return math.exp(preference.log_sigmoid(value))
