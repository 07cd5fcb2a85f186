"""The messages between the processes of the train stage.

The stage and its training processes: Order and Outcome, as JSON files in the scratch folder. The leader and its
followers: Start, Files and Run, through torch.distributed.
"""

from dataclasses import dataclass
from pathlib import Path

from finetune_api.base import Model
from finetune_api.exit_codes import ExitCode
from finetune_api.plan import Plan
from finetune_api.result import StageResult
from finetune_trainer.gpu.memory_fallback import Shortage
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.train.checkpoints import Marker

STOPPED = "train was asked to stop; it continues from its last checkpoint automatically"


class Order(Model):
    """What the stage asks a training process to do."""

    plan: Plan
    attempt: int
    scratch: Path
    outcome: Path
    parent: int
    # File descriptor.
    progress: int
    # None: choose by the free memory.
    memory_settings: MemorySettings | None = None
    # The model's files, if an earlier process has fetched them.
    weights: Path | None = None


class Outcome(Model):
    """What a training process leaves: a result, or that GPU memory ran out with `memory_settings`.

    A follower leaves neither if all went well.
    """

    result: StageResult | None = None
    shortage: Shortage | None = None
    memory_settings: MemorySettings | None = None
    weights: Path | None = None


def went_well(outcome: Outcome) -> bool:
    """Return whether a process did its work."""
    if outcome.shortage is not None:
        return False
    return outcome.result is None or outcome.result.exit_code == ExitCode.OK


@dataclass(frozen=True)
class Start:
    """From the leader to all, before they load the model."""

    memory_settings: MemorySettings
    # The indices of the rows of each step.
    steps: list[list[int]]


@dataclass(frozen=True)
class Files:
    """From the first process of a pod to the others in it: folders."""

    weights: Path
    # The earlier adapter to continue from.
    adapter: Path | None


@dataclass(frozen=True)
class Run:
    """From the leader to all, before they train."""

    # The checkpoint to resume from.
    resume: Marker | None
    # False: an earlier attempt has trained to the end.
    trains: bool
