"""What every stage is given."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from finetune_api.layout import JobLayout
from finetune_api.plan import Plan
from finetune_api.progress import Activity
from finetune_trainer.runtime.node import ALONE, Node
from finetune_trainer.runtime.sigterm import StopFlag
from finetune_trainer.storage.store import Store


class Reporter(Protocol):
    """Tells the user what is going on: on the terminal, and to the operator where there is one. Never raises."""

    def report(
        self,
        activity: Activity,
        *,
        step: int | None = None,
        total_steps: int | None = None,
        percent: int | None = None,
        epoch: float | None = None,
        loss: float | None = None,
        tokens_per_second: float | None = None,
        eta_seconds: float | None = None,
    ) -> None:
        """Replace the current progress. Cheap: call it as often as there is news."""


@dataclass(frozen=True)
class Context:
    """The plan and the ways to the world."""

    plan: Plan
    layout: JobLayout
    store: Store
    reporter: Reporter
    # A private writable folder that is gone with the pod.
    scratch: Path
    attempt: int
    # SIGTERM ends a stage at once unless it defers that: see `stop`.
    stop: StopFlag
    # That train together in this pod, one per GPU.
    processes: int = 1
    # Of train: its place among the pods that train together.
    node: Node = ALONE
