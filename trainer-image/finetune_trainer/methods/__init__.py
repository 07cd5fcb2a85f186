"""One trainer per method: TRL's, with every setting explicit, over rows whose order is fixed before it starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_api.plan import Plan
from finetune_api.training_spec import Method
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.methods import dpo, kto, orpo, sft
from finetune_trainer.methods.interface import LoadedModel, Progress
from finetune_trainer.methods.log_names import figures
from finetune_trainer.methods.rows import Row

__all__ = ["build", "check_batches", "figures", "ordered"]

_METHODS: dict[Method, Any] = {"SFT": sft, "DPO": dpo, "ORPO": orpo, "KTO": kto}


def ordered(rows: Sequence[Row], steps: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the rows of each step by length, so that a micro-batch, a slice of them, needs little padding."""
    return [sorted(step, key=lambda index: (rows[index].length, index)) for step in steps]


def build(
    plan: Plan,
    loaded: LoadedModel,
    rows: Sequence[Row],
    steps: Sequence[Sequence[int]],
    progress: Progress,
    folder: Path,
    memory_settings: MemorySettings,
    processes: int = 1,
) -> Any:
    """Return the method's trainer; its dataset is the rows of step 0, then of step 1, and so on.

    `processes`: how many train together, each with its part of `training.batch_size`.
    """
    method = _METHODS[plan.training.method]
    trainer = method.build(plan, loaded, rows, steps, progress, folder, memory_settings, processes)
    assert len(trainer.train_dataset) == sum(map(len, steps)), "the trainer dropped rows"
    return trainer


def check_batches(plan: Plan, trainer: Any, rows: Sequence[Row], step: Sequence[int]) -> None:
    """Assert that the first optimizer step learns exactly the rows and tokens that prepare chose.

    Raises:
        AssertionError: a library changed rows, order or masks.
    """
    _METHODS[plan.training.method].check_batches(trainer, rows, step)
