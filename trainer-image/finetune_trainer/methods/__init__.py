"""The training methods, one module each; `of` returns one by its name.

The trainers are TRL's, with every setting explicit, on rows whose order is fixed before training starts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_api.dataset_spec import DatasetFormat
from finetune_api.plan import Plan
from finetune_api.training_spec import Method
from finetune_trainer.errors import GuardError
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.methods.dpo import DPO
from finetune_trainer.methods.interface import LoadedModel, Progress, TrainingMethod
from finetune_trainer.methods.kto import KTO
from finetune_trainer.methods.log_names import figures
from finetune_trainer.methods.orpo import ORPO
from finetune_trainer.methods.rows import Row
from finetune_trainer.methods.sft import SFT

__all__ = ["build", "check_batches", "figures", "learning_from", "of", "ordered"]

_METHODS: dict[Method, TrainingMethod[Any]] = {
    "SFT": SFT(),
    "DPO": DPO(),
    "ORPO": ORPO(),
    "KTO": KTO(),
}


def of(method: Method) -> TrainingMethod[Any]:
    """Return the method that a plan names."""
    return _METHODS[method]


def learning_from(row_format: DatasetFormat) -> list[Method]:
    """Return the methods that learn from a dataset format, the usual one first."""
    return [name for name, method in _METHODS.items() if row_format in method.formats]


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
    """Return the trainer of the plan's method; see `TrainingMethod.build`.

    Raises:
        GuardError: it does not have every row of every step.
    """
    from transformers import PrinterCallback

    method = of(plan.training.method)
    trainer = method.build(plan, loaded, rows, steps, progress, folder, memory_settings, processes)
    # It prints each log as a Python dict; the progress line has the same figures.
    trainer.remove_callback(PrinterCallback)
    if len(trainer.train_dataset) != sum(map(len, steps)):
        raise GuardError("the trainer dropped rows")
    return trainer


def check_batches(plan: Plan, trainer: Any, rows: Sequence[Row], step: Sequence[int]) -> None:
    """Check that the first optimizer step learns exactly the rows and tokens that prepare chose.

    Raises:
        GuardError: a library changed rows, order or masks.
    """
    of(plan.training.method).check_batches(trainer, rows, step)
