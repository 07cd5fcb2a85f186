"""What a training method is given by the floors above it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from finetune_trainer.gpu.precision import Precision


@dataclass(frozen=True)
class LoadedModel:
    """The model with its adapter; `tokenizer` is the model's own."""

    model: Any
    tokenizer: Any
    precision: Precision


@dataclass(frozen=True)
class Decision:
    """What the trainer is told at the end of a step."""

    save: bool
    stop: bool


class Progress(Protocol):
    """What is told of each optimizer step; see `train.step_control`."""

    def step_begins(self, done: int) -> None:
        """`done` steps are behind."""

    def step_ends(self, done: int) -> Decision:
        """`done` counts this step."""

    def logged(self, done: int, loss: float) -> None:
        """The loss of step `done` is known."""

    def saved(self, folder: Path, step: int) -> None:
        """The trainer wrote a checkpoint to `folder`."""
