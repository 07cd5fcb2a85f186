"""SFT: learn to give the answers of the examples."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.plan import Plan
from finetune_trainer.errors import GuardError
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.gpu.precision import Precision
from finetune_trainer.methods import batch_check
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
class SFTRow(Row):
    """An example; `completion_mask` is 1 where the token is learned."""

    row_id: int
    input_ids: list[int]
    completion_mask: list[int]
    truncated: bool = False
    answers_left_out: int = 0

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.input_ids)

    @property
    def supervised(self) -> int:
        """Learned tokens; nothing predicts the first one."""
        return self.sequence.supervised

    @property
    def sequence(self) -> TokenSequence:
        """The row itself."""
        return TokenSequence(self.row_id, self.input_ids, self.completion_mask)

    def ends_on(self, stops: Collection[int]) -> bool:
        """See Row."""
        return self.input_ids[-1] in stops and self.completion_mask[-1] == 1


def settings(
    plan: Plan,
    precision: Precision,
    total_steps: int,
    folder: Path,
    memory_settings: MemorySettings,
    processes: int = 1,
) -> dict[str, Any]:
    """Return the arguments of SFTConfig."""
    return common(plan, precision, total_steps, folder, memory_settings, processes) | {
        "activation_offloading": False,
        "loss_type": "nll",
        "completion_only_loss": True,
        "assistant_only_loss": False,
        "truncation_mode": "keep_start",
        "packing": False,
        "eval_packing": False,
        # Without a varlen attention kernel it is slower than padding, and not every torch here has one.
        "padding_free": False,
        "shuffle_dataset": False,
        "remove_unused_columns": True,
    }


class SFT(TrainingMethod[SFTRow]):
    """See TrainingMethod."""

    formats = ("Alpaca", "ShareGPT", "Messages", "PromptCompletion", "Text")
    gains_from_passes = True
    row = SFTRow

    def columns(self) -> list[tuple[str, Any]]:
        """See TrainingMethod."""
        import pyarrow as pa

        return [("input_ids", pa.list_(pa.int32())), ("completion_mask", pa.list_(pa.int8()))]

    def encode(self, example: Example, rendering: Rendering) -> SFTRow | str:
        """Return a text with all of it learned, or a conversation with the answers that are shown as they are given."""
        if example.text is not None:
            start, learned = rendering.plain_text(example.text)
            return _cut(example.row_id, [*start, *learned], [0] * len(start) + [1] * len(learned), rendering.maximum)
        ids, spans, left_out = rendering.answers()
        if spans[0][0] >= rendering.maximum:
            return question_too_long(spans[0][0], rendering.maximum)
        if not rendering.responses_only:
            mask = [1] * len(ids)
            if ids[0] == rendering.bos_token_id:
                mask[0] = 0
            return _cut(example.row_id, ids, mask, rendering.maximum)
        mask = [0] * len(ids)
        for start_at, end in spans:
            mask[start_at:end] = [1] * (end - start_at)
        return _cut(example.row_id, ids, mask, rendering.maximum, left_out)

    def score(
        self,
        plan: Plan,  # noqa: ARG002
        rows: Sequence[SFTRow],
        predictions: Predictions,
        base: Sequence[Score] | None,  # noqa: ARG002
    ) -> list[Score]:
        """Return the mean loss of each row's learned tokens."""
        return [Score(loss) for loss in predictions.mean_losses([row.sequence for row in rows])]

    def build(
        self,
        plan: Plan,
        loaded: LoadedModel,
        rows: Sequence[SFTRow],
        steps: Sequence[Sequence[int]],
        progress: Progress,
        folder: Path,
        memory_settings: MemorySettings,
        processes: int,
    ) -> Any:
        """See TrainingMethod."""
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        # TRL drops a row that teaches nothing: see `filler`.
        taught = [row for row in rows if any(row.completion_mask)]
        trainer = SFTTrainer(
            model=loaded.model,
            processing_class=loaded.tokenizer,
            args=SFTConfig(**settings(plan, loaded.precision, len(steps), folder, memory_settings, processes)),
            train_dataset=Dataset.from_dict(
                {"input_ids": [r.input_ids for r in taught], "completion_mask": [r.completion_mask for r in taught]}
            ),
            callbacks=[callback(progress)],
        )
        dataset = trainer.train_dataset
        if len(dataset) != len(taught):
            raise GuardError("the trainer dropped rows")
        for row in rows[len(taught) :]:
            dataset = dataset.add_item({"input_ids": row.input_ids, "labels": [batch_check.IGNORED] * row.length})
        trainer.train_dataset = dataset.select([index for step in steps for index in step])
        return trainer

    def check_batches(self, trainer: Any, rows: Sequence[SFTRow], step: Sequence[int]) -> None:
        """See TrainingMethod."""
        seen: list[tuple[list[int], list[int]]] = []
        for batch in batch_check.of_step(trainer, len(step)):
            seen += zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)
        batch_check.check_count(len(seen), len(step))
        for (ids, labels), index in zip(seen, step, strict=True):
            batch_check.check_sequence(rows[index].sequence, ids, labels)

    def filler(self, like: SFTRow) -> SFTRow:
        """The loss is a mean over the tokens that are learned, so that a row without any changes nothing."""
        return SFTRow(row_id=-1, input_ids=like.input_ids[:2], completion_mask=[0, 0])


def _cut(row_id: int, ids: list[int], mask: list[int], maximum: int, left_out: int = 0) -> SFTRow:
    return SFTRow(row_id, ids[:maximum], mask[:maximum], len(ids) > maximum, left_out)
