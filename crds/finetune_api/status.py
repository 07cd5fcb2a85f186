"""The status of a FineTuneJob."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.base import Message, Model, Sha256, ShortText, SignedDecimal, Timestamp
from finetune_api.progress import ProgressStatus
from finetune_api.spec import Stage

ConditionType = Literal[
    "Accepted",
    "Finished",
    "Succeeded",
    "Failed",
    "Ready",
    "Reconciling",
    "Stalled",
    "Suspended",
    "Evaluated",
    "SpecApplied",
]
Verdict = Literal["Better", "Worse", "NotEnoughEvidence"]
Phase = Literal["Pending", "Preparing", "Training", "Exporting", "Suspended", "Succeeded", "Failed"]
# Skipped: an identical run already has its result.
StageState = Literal["Pending", "Running", "Succeeded", "Failed", "Skipped"]


class Condition(Model):
    """As metav1.Condition."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(min_length=1, max_length=128)]
    message: Message
    last_transition_time: Timestamp
    observed_generation: int | None = None


class Snapshot(Model):
    """Written at acceptance: later stages and attempts use it, whatever the operator's version.

    It is written again only if the spec or the chart is corrected while `specEditable` is true.
    """

    plan_version: int
    plan_sha256: Sha256
    trainer_image: Annotated[str, Field(max_length=512)]
    operator_version: ShortText
    pod_contract: int | None = Field(
        None,
        description="The version of the trainer image's interface to its pods. 2: supports several GPUs. Left out: "
        "one GPU.",
    )
    spec_sha256: Sha256 | None = Field(None, description="Checksum of the parts of the spec that the plan is made of.")


class Failure(Model):
    """Why something failed, in one sentence, with the remedy."""

    stage: Stage | None = None
    reason: Annotated[str, Field(max_length=128)]
    message: Message
    exit_code: int | None = None


DeletionReason = Literal["Suspended", "ComputeChanged", "SpecChanged", "JobUndecided"]


class PlannedDeletion(Model):
    """A Job that the operator deletes on purpose, so that its end is no failure."""

    job_uid: ShortText
    reason: DeletionReason


class StageStatus(Model):
    """One of the three stages."""

    name: Stage
    state: StageState
    attempt: int = Field(ge=0, description="Attempts started before the current one.")
    report_only: bool | None = Field(
        None,
        description="True: the current attempt only reads the result that an earlier one stored, without a GPU.",
    )
    first_attempt: int = Field(
        0, ge=0, description="First attempt since the job was last reopened. Earlier attempts do not count."
    )
    counted_failures: int = Field(0, ge=0)
    checkpoint_step: int | None = Field(None, ge=0, description="The last checkpoint that a failed attempt reported.")
    unusable_nodes: Annotated[list[Annotated[str, Field(max_length=253)]], Field(max_length=64)] | None = Field(
        None, description="Nodes with an unusable GPU, which the next attempts avoid."
    )
    refused_since: Timestamp | None = Field(
        None, description="Since when the cluster has been refusing to create the stage's Job."
    )
    job_name: ShortText | None = None
    planned_deletion: PlannedDeletion | None = Field(
        None, description="The Job that the operator is about to delete, or is deleting, and why."
    )
    start_time: Timestamp | None = None
    completion_time: Timestamp | None = None
    last_failure: Failure | None = None


class DatasetStatus(Model):
    """Counts, never row text."""

    examples: int
    dropped: int = 0
    holdout: int = 0
    supervised_tokens: int
    truncated: int = 0
    steps_planned: int | None = Field(
        None, ge=1, description="Optimizer steps: spec.training.maxSteps or epochs, or what prepare chose without them."
    )
    epochs_planned: SignedDecimal | None = Field(None, description="How many times these steps show each training row.")
    warnings: Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=8)] = []


class ModelStatus(Model):
    """What was resolved."""

    revision: ShortText | None = Field(None, description="Hub commit, or sha256 over the files' identities.")
    parameters: int | None = None
    architecture: ShortText | None = None
    template: Literal["Model", "Alpaca", "Custom"] | None = None
    adapter: Annotated[str, Field(max_length=2048)] | None = Field(
        None, description="The earlier adapter that was trained further, as a URI."
    )


class MemoryStatus(Model):
    """GPU memory."""

    estimated_mib: int | None = Field(
        None,
        alias="estimatedMiB",
        description="In MiB. After prepare: the least that the job needs. After train: the estimate for the settings "
        "that were used.",
    )
    peak_mib: int | None = Field(
        None, alias="peakMiB", description="The most that torch reserved; the CUDA context needs about 0.8 GiB more."
    )


class ScratchStatus(Model):
    """Disk."""

    train_mib: int | None = Field(
        None, alias="trainMiB", description="The most that train writes to its scratch space, in MiB."
    )
    export_mib: int | None = Field(None, alias="exportMiB", description="The same for export.")


class Effective(Model):
    """The settings that training ran with."""

    processes: int | None = Field(
        None, ge=2, description="Processes that trained together, one per GPU, in all pods. Left out: one."
    )
    micro_batch_size: int | None = None
    gradient_accumulation: int | None = None
    attention: ShortText | None = None
    precision: ShortText | None = None
    gradient_checkpointing: ShortText | None = None
    optimizer: ShortText | None = None
    gpu: ShortText | None = Field(None, description="The card, or none (CPU).")
    driver: ShortText | None = None


class EvaluationStatus(Model):
    """The evaluation of the result on the hold-out rows."""

    holdout_loss_base: SignedDecimal | None = None
    holdout_loss_tuned: SignedDecimal | None = None
    standard_error: SignedDecimal | None = Field(
        None, description="Standard error of the mean difference between the two, row by row."
    )
    verdict: Verdict | None = Field(
        None, description="Better or Worse: the difference is more than chance explains. Otherwise NotEnoughEvidence."
    )
    best_step: int | None = Field(None, ge=0, description="The step that was kept.")
    # For DPO, ORPO and KTO.
    reward_accuracy: SignedDecimal | None = Field(
        None,
        description="Share of hold-out rows in which the chosen answer is preferred; for KTO, whose label is "
        "predicted.",
    )
    reward_margin: SignedDecimal | None = Field(None, description="Mean reward of good answers minus that of bad ones.")
    forgetting: SignedDecimal | None = Field(
        None, description="Mean KL divergence from the base on general questions, in nats per token."
    )
    warnings: Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=4)] = []


class Parity(Model):
    """How a file predicts, token by token, on rows that were not trained on.

    The F16 file and the adapter's GGUF are held against the trained model, the others against the F16 file.
    """

    kl: SignedDecimal | None = Field(None, description="Mean KL divergence from that model, in nats per token.")
    top1: SignedDecimal | None = Field(
        None, description="Share of tokens, 0 to 1, for which both have the same most likely token."
    )
    retained_gain: SignedDecimal | None = Field(
        None, description="Share of the gain of training that the file keeps. Left out if the gain is too small."
    )


# Of the reason why a file is rejected, in characters.
MAXIMUM_REJECTION = 512


class Artifact(Model):
    """A result in the bucket."""

    name: Annotated[str, Field(max_length=63)]
    type: Literal["LoRAAdapter", "GGUF", "LoRAGGUF", "MergedModel", "Modelfile"]
    path: Annotated[str, Field(max_length=512)] = Field(description="Relative to status.outputUri.")
    size_bytes: int
    sha256: Sha256
    parity: Parity | None = Field(None, description="How it was found to predict.")
    rejected: Annotated[str, Field(max_length=MAXIMUM_REJECTION)] | None = Field(
        None,
        description="Why it failed its proof. It is not published; path is where it is kept, or what it was made of.",
    )


class FineTuneJobStatus(Model):
    """The status subresource. Only the operator writes it; progress has its own field manager."""

    observed_generation: int = -1
    retry_generation: int = Field(0, ge=0, description="The spec.retryGeneration that the status is for.")
    phase: Phase | None = None
    stage: Stage | None = Field(
        None, description="The stage that runs, is due or failed; derived from stages, for kubectl get."
    )
    start_time: Timestamp | None = None
    completion_time: Timestamp | None = None
    gpu_seconds: int | None = Field(
        None,
        description="GPU seconds of the finished containers of train: the time of each times its GPUs, over all "
        "attempts.",
    )
    gpu_since: Timestamp | None = Field(
        None, description="Since when the current containers of train have been running."
    )
    gpu_count: int | None = Field(None, description="The GPUs of the current containers. Left out: 1.")
    active_seconds: int | None = Field(
        None, ge=0, description="The time counted for spec.activeDeadlineSeconds, without that since activeSince."
    )
    active_since: Timestamp | None = Field(
        None, description="Since when the current stage's Job has been allowed to run. Left out while a queue holds it."
    )
    run_id: Sha256 | None = None
    output_uri: Annotated[str, Field(max_length=2048)] | None = None
    reused_from: Annotated[str, Field(max_length=2048)] | None = Field(
        None, description="The folder of the identical run that has the files."
    )
    logs_uri: Annotated[str, Field(max_length=2048)] | None = None
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    snapshot: Snapshot | None = None
    spec_editable: bool | None = Field(
        None,
        description="True: no container has started, or the job failed before it trained; the whole spec may still be "
        "corrected. Left out: model, dataset, training, evaluation, export, output and tracking are fixed.",
    )
    stages: Annotated[
        list[StageStatus],
        Field(
            max_length=3, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
        ),
    ] = []
    dataset: DatasetStatus | None = None
    model: ModelStatus | None = None
    memory: MemoryStatus | None = None
    scratch: ScratchStatus | None = None
    progress: ProgressStatus | None = None
    effective: Effective | None = None
    evaluation: EvaluationStatus | None = None
    artifacts: Annotated[
        list[Artifact],
        Field(
            max_length=24,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    failure: Failure | None = None
