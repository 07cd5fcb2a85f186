"""The context that every stage gets."""

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
    """Reports progress: on the terminal, and to the operator if there is one. Never raises."""

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
        """Replace the current progress. Cheap: call it as often as something changes."""


@dataclass(frozen=True)
class Context:
    """The plan, and how a stage reaches everything outside it."""

    plan: Plan
    layout: JobLayout
    store: Store
    reporter: Reporter
    # A private writable folder that is gone with the pod.
    scratch: Path
    attempt: int
    # SIGTERM ends a stage at once unless it defers that: see `runtime.sigterm`.
    stop: StopFlag
    # How many train together in this pod, one per GPU.
    processes: int = 1
    # In train, this pod's place among the pods that train together.
    node: Node = ALONE
