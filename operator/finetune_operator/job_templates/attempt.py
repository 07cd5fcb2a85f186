"""What is needed to render the Job of one attempt."""

from dataclasses import dataclass

from finetune_api.job import ObjectMeta
from finetune_api.plan import Plan
from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import ScratchStatus, Snapshot
from finetune_operator.job_defaults import Settings


@dataclass(frozen=True)
class Attempt:
    """One attempt of a stage. Plan and image come from what was accepted, the rest of the pod from the present spec."""

    metadata: ObjectMeta
    spec: FineTuneJobSpec
    plan: Plan
    snapshot: Snapshot
    settings: Settings
    # Counts from 0.
    number: int
    # Nodes that the pod must not run on.
    avoid_nodes: tuple[str, ...] = ()
    # What prepare found.
    scratch: ScratchStatus | None = None
    # Whether it only reads the result that an earlier attempt stored.
    report_only: bool = False
