"""The progress that a running pod reports to the operator."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.base import Model, SignedDecimal, Timestamp
from finetune_api.spec import Stage

Activity = Literal[
    "Starting",
    # For a server that does not answer.
    "Waiting",
    "Downloading",
    "Checking",
    "Tokenizing",
    "Loading",
    "Compiling",
    "Training",
    "Evaluating",
    "Saving",
    "Merging",
    "Converting",
    "Quantizing",
    "Proving",
    "Uploading",
]
MAXIMUM_BODY_BYTES = 16 * 1024
TOKEN_AUDIENCE = "finetune.dev/progress"


class ProgressStatus(Model):
    """`status.progress`: the last report. Activity and ETA are set while its stage runs."""

    stage: Stage
    attempt: Annotated[int, Field(ge=0)]
    sequence: int | None = Field(None, ge=0, description="Number of the report within its attempt.")
    activity: Activity | None = None
    step: int | None = Field(None, ge=0, description="Finished optimizer steps.")
    total_steps: int | None = Field(None, ge=0)
    percent: int | None = Field(None, ge=0, le=100, description="Percentage of the current activity.")
    epoch: SignedDecimal | None = None
    loss: SignedDecimal | None = None
    tokens_per_second: int | None = Field(None, ge=0)
    eta_seconds: int | None = Field(None, ge=0)
    steps: Annotated[str, Field(max_length=32)] | None = Field(None, description="step/totalSteps, for kubectl get.")
    eta: Annotated[str, Field(max_length=32)] | None = Field(None, description="etaSeconds as 1h02m, for kubectl get.")
    update_time: Timestamp | None = None


class Progress(ProgressStatus):
    """The body of a progress push; `steps`, `eta` and `updateTime` are set by the operator."""

    activity: Activity
