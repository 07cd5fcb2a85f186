"""SFT: learn to give the answers of the examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_api.plan import Plan
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.gpu.precision import Precision
from finetune_trainer.methods import batch_check
from finetune_trainer.methods.common_settings import common
from finetune_trainer.methods.interface import LoadedModel, Progress
from finetune_trainer.methods.rows import SFTRow
from finetune_trainer.methods.step_callback import callback


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


def build(
    plan: Plan,
    loaded: LoadedModel,
    rows: Sequence[SFTRow],
    steps: Sequence[Sequence[int]],
    progress: Progress,
    folder: Path,
    memory_settings: MemorySettings,
    processes: int,
) -> Any:
    """See `methods.build`."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    # TRL drops a row that teaches nothing: see `train.ranks.shard`.
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
        raise AssertionError("the trainer dropped rows")
    for row in rows[len(taught) :]:
        dataset = dataset.add_item({"input_ids": row.input_ids, "labels": [batch_check.IGNORED] * row.length})
    trainer.train_dataset = dataset.select([index for step in steps for index in step])
    return trainer


def check_batches(trainer: Any, rows: Sequence[SFTRow], step: Sequence[int]) -> None:
    """See `methods.check_batches`."""
    seen: list[tuple[list[int], list[int]]] = []
    for batch in batch_check.of_step(trainer, len(step)):
        seen += zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)
    batch_check.check_count(len(seen), len(step))
    for (ids, labels), index in zip(seen, step, strict=True):
        row = rows[index]
        length = row.length
        wanted = [
            token if m else batch_check.IGNORED for token, m in zip(row.input_ids, row.completion_mask, strict=True)
        ]
        assert ids[:length] == row.input_ids, f"row {row.row_id} reaches the model changed"
        # The first label is never predicted, and a collator may mask it.
        assert labels[1:length] == wanted[1:], f"row {row.row_id} is learned at other tokens than prepare chose"
        assert all(label == batch_check.IGNORED for label in labels[length:]), (
            f"row {row.row_id}: padding would be learned"
        )
