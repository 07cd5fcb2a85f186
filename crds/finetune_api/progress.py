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
    pod_creation_time: Timestamp | None = Field(
        None, description="Of the pod that reports: a queue may replace it within an attempt."
    )
    sequence: int | None = Field(None, ge=0, description="Number of the report within its pod.")
    activity: Activity | None = None
    step: int | None = Field(None, ge=0, description="Finished optimizer steps.")
    total_steps: int | None = Field(None, ge=0)
    percent: int | None = Field(
        None, ge=0, le=100, description="Percentage of the current activity; 0 where it cannot be measured."
    )
    epoch: SignedDecimal | None = None
    loss: SignedDecimal | None = None
    tokens_per_second: int | None = Field(None, ge=0)
    eta_seconds: int | None = Field(
        None,
        ge=0,
        description="Seconds until train ends, if it does not stop early: its steps, measurements and judgement at the "
        "measured pace. Left out in prepare and export, and once the time is over: nobody knows then.",
    )
    steps: Annotated[str, Field(max_length=32)] | None = Field(
        None,
        description="step/totalSteps, the last that is known of the stage; the checkpoint's step after an attempt that "
        "is to be resumed.",
    )
    completed: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="steps and percent as 27/60 45%, for kubectl get. While nothing runs: what was reached."
    )
    eta: Annotated[str, Field(max_length=32)] | None = Field(
        None, description="etaSeconds as >1h02m, for kubectl get: at least so long, because export follows."
    )
    update_time: Timestamp | None = None


class Progress(ProgressStatus):
    """The body of a progress push; the operator sets the pod's time, what is for kubectl get, and `updateTime`."""

    activity: Activity
