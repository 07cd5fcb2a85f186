"""The input for rendering the Job of one attempt."""

from dataclasses import dataclass

from finetune_api.job import ObjectMeta
from finetune_api.plan import Plan
from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import ScratchStatus, Snapshot
from finetune_operator.job_defaults import Settings


@dataclass(frozen=True)
class Attempt:
    """One attempt of a stage. Plan and image are those that were accepted; the rest follows the present spec."""

    metadata: ObjectMeta
    spec: FineTuneJobSpec
    plan: Plan
    snapshot: Snapshot
    settings: Settings
    # Counts from 0.
    number: int
    # Nodes that the pod must not run on.
    avoid_nodes: tuple[str, ...] = ()
    # As prepare estimated it.
    scratch: ScratchStatus | None = None
    # The model's weights, as prepare counted them.
    parameters: int | None = None
    # Whether it only reads the result that an earlier attempt stored.
    report_only: bool = False
