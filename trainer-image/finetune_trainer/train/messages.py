"""What the processes of the train stage tell each other.

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

STOPPED = "train was told to stop; it continues from its last checkpoint by itself"


class Order(Model):
    """What the process is told."""

    plan: Plan
    attempt: int
    scratch: Path
    outcome: Path
    parent: int
    # File descriptor.
    progress: int
    # None: choose by the memory that is free.
    memory_settings: MemorySettings | None = None
    # The model's files, if an earlier process has fetched them.
    weights: Path | None = None


class Outcome(Model):
    """What a process leaves: a result, or that the GPU's memory was too small for `rung`.

    One that follows has neither if all went well.
    """

    result: StageResult | None = None
    shortage: Shortage | None = None
    memory_settings: MemorySettings | None = None
    weights: Path | None = None


def went_well(outcome: Outcome) -> bool:
    """Whether a process did what it had to."""
    if outcome.shortage is not None:
        return False
    return outcome.result is None or outcome.result.exit_code == ExitCode.OK


@dataclass(frozen=True)
class Start:
    """What the leader tells the others before they load the model."""

    memory_settings: MemorySettings
    # The rows of each step, by their index.
    steps: list[list[int]]


@dataclass(frozen=True)
class Files:
    """What the first process of a pod tells the others of it: folders."""

    weights: Path
    # The one to go on from.
    adapter: Path | None


@dataclass(frozen=True)
class Run:
    """What the leader tells the others before they train."""

    # What to go on from.
    resume: Marker | None
    # False: an earlier attempt has trained to the end.
    trains: bool
