"""What a user asks for: the spec of a FineTuneJob.

Each default is written once, here or in the module of its part; rules, descriptions and the plan take it from there.
"""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from finetune_api import shares
from finetune_api.base import Model, check_one_of, exactly_one_of, rules

# The names with `as` are re-exported, so that importers need not know where parts of a spec are defined.
from finetune_api.compute import GPUS_PER_NODE, NODES
from finetune_api.compute import ComputeSpec as ComputeSpec
from finetune_api.compute import Resources as Resources
from finetune_api.dataset_spec import DatasetFormat as DatasetFormat
from finetune_api.dataset_spec import DatasetSource as DatasetSource
from finetune_api.dataset_spec import DatasetSpec as DatasetSpec
from finetune_api.model_spec import HuggingFaceModel
from finetune_api.model_spec import ModelSpec as ModelSpec
from finetune_api.references import HttpBase, S3Location, SecretRef
from finetune_api.scheduling_spec import SchedulingSpec as SchedulingSpec
from finetune_api.training_spec import BATCH_SIZE
from finetune_api.training_spec import Method as Method
from finetune_api.training_spec import TrainingSpec as TrainingSpec

START_DEADLINE_SECONDS = 1800
Stage = Literal["prepare", "train", "export"]
STAGES: tuple[Stage, ...] = ("prepare", "train", "export")
GGUFType = Literal[
    "F16",
    "BF16",
    "Q8_0",
    "Q6_K",
    "Q5_K_M",
    "Q5_K_S",
    "Q4_K_M",
    "Q4_K_S",
    "Q3_K_M",
    "Q2_K",
    "IQ4_XS",
    "IQ3_M",
    "IQ2_M",
]
TTLTarget = Literal["Children", "FineTuneJob"]
# The weights that the adapter is merged into: as published, or as training saw them after rounding to 4 bit.
MergeBase = Literal["Original", "Trained"]
ReportLanguage = Literal["Auto", "en", "ko"]


class Gate(Model):
    """What is required of the result."""

    holdout_loss: Literal["MustImprove"] = Field(
        "MustImprove",
        description="The result must be better on the hold-out rows by more than chance (verdict Better).",
    )
    on_miss: Literal["Warn", "Fail"] = Field(
        "Warn", description="Warn: condition Evaluated becomes False. Fail: the job also fails, before export."
    )


class EvaluationSpec(Model):
    """How the result is judged."""

    prompts: Annotated[list[Annotated[str, Field(min_length=1, max_length=2000)]], Field(max_length=16)] = Field(
        [], description="The model answers them before and after training, for comparison."
    )
    max_new_tokens: int = Field(256, ge=1, le=4096, description="Maximum length of an answer, in tokens.")
    gate: Gate | None = Field(None, description="Left out: any result is accepted.")


class OriginalModel(Model):
    """The 16-bit weights of a model whose repository is stored in 4 bit."""

    model_config = ConfigDict(json_schema_extra=rules(exactly_one_of("huggingFace", "s3")))

    hugging_face: HuggingFaceModel | None = Field(None, description="From the Hugging Face hub or its mirror.")
    s3: S3Location | None = Field(None, description="From a folder in a bucket.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        check_one_of(self, "hugging_face", "s3")
        return self


class ExportSpec(Model):
    """The files made from the adapter."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.originalModel) || !has(self.mergeBase) || self.mergeBase == 'Original'",
                "originalModel is what mergeBase Original merges into; leave one of the two out",
            )
        )
    )

    gguf: Annotated[list[GGUFType], Field(max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"})] = Field(
        ["Q4_K_M"],
        description="GGUF files for Ollama, llama.cpp and LM Studio, one per type. Q4_K_M is small and good, "
        "Q8_0 is near lossless, F16 is lossless; IQ types are the smallest. Left out: Q4_K_M. An "
        "empty list: none, the adapter only.",
    )
    lora_gguf: bool = Field(
        False,
        alias="loraGGUF",
        description="Also write the adapter alone as a GGUF, for llama-server --lora beside a GGUF of the base model.",
    )
    merged: bool = Field(
        False, description="Also publish the merged 16-bit model as safetensors, for servers without LoRA support."
    )
    merge_base: MergeBase | None = Field(
        None,
        description="The weights that the adapter is merged into. Original: the 16-bit weights as published. Trained: "
        "the weights as training saw them, after rounding to 4 bit. Left out: Original if there are 16-bit weights, "
        "else Trained.",
    )
    original_model: OriginalModel | None = Field(
        None,
        description="The 16-bit weights of the same model, if spec.model is a repository stored in 4 bit.",
    )
    report_language: ReportLanguage = Field(
        "Auto",
        description="The language of report.html. Auto: Korean if most letters of the dataset are Hangul, else "
        "English. report.json is always in English.",
    )


class OutputSpec(Model):
    """Where everything is written."""

    s3: S3Location
    reuse: Literal["Identical", "Never"] = Field(
        "Identical",
        description="Identical: if this namespace has a complete run of the same data, model and settings in this "
        "bucket, the job succeeds at once with its files. Never: train anyway.",
    )


class MLflow(Model):
    """An MLflow server that receives the parameters and metrics of the run."""

    uri: HttpBase = Field(description="Base URL of the server, such as http://mlflow.corp:5000.")
    experiment: Annotated[str, Field(min_length=1, max_length=250)] | None = Field(
        None, description="Left out: <namespace>/<name> of the job."
    )
    credentials_secret_ref: SecretRef | None = Field(
        None,
        description="Secret with MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
    )


class TrackingSpec(Model):
    """Where else training metrics are sent. TensorBoard files are always in the bucket."""

    mlflow: MLflow | None = None


class Retries(Model):
    """What happens after a failure that may be temporary."""

    maximum: int = Field(3, ge=0, le=20, description="Counted failures per stage before the job fails.")


# What the plan is made of: fixed once the first container has started, see `crd`. Everything else may change any time.
PLANNED_MEMBERS = ("model", "dataset", "training", "evaluation", "export", "output", "tracking")
# In CEL, with defaults for everything that may be left out.
_GPUS = (
    f"((has(self.compute) && has(self.compute.nodes) ? self.compute.nodes : {NODES}) * "
    "(has(self.compute) && has(self.compute.accelerator) && has(self.compute.accelerator.extendedResource) && "
    "has(self.compute.accelerator.extendedResource.count) ? self.compute.accelerator.extendedResource.count : "
    f"{GPUS_PER_NODE}))"
)
_BATCH = f"(has(self.training) && has(self.training.batchSize) ? self.training.batchSize : {BATCH_SIZE})"


class FineTuneJobSpec(Model):
    """One fine-tuning run."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "(has(self.retryGeneration) ? self.retryGeneration : 0) >= "
                "(has(oldSelf.retryGeneration) ? oldSelf.retryGeneration : 0)",
                "retryGeneration may only grow",
            ),
            *(
                (
                    f"!has(self.training) || !has(self.training.method) || !(self.training.method in {methods}) || "
                    f"!has(self.dataset.format) || self.dataset.format in {formats}",
                    message,
                )
                for methods, formats, message in (
                    (["DPO", "ORPO"], ["Auto", "Preference"], "methods DPO and ORPO need dataset.format Preference"),
                    (["KTO"], ["Auto", "Binary"], "method KTO needs dataset.format Binary"),
                )
            ),
            (
                "(has(self.training) && has(self.training.method) && self.training.method != 'SFT') || "
                "!has(self.dataset.format) || !(self.dataset.format in ['Preference', 'Binary'])",
                "dataset.format Preference is for methods DPO and ORPO, and Binary for KTO; set training.method",
            ),
            (
                f"{_GPUS} <= 1 || !has(self.training) || !has(self.training.method) || self.training.method == 'SFT'",
                "methods DPO, ORPO and KTO train on one GPU; leave compute.nodes and "
                "compute.accelerator.extendedResource.count out",
            ),
            (
                f"{_GPUS} <= 1 || {_BATCH} % {_GPUS} == 0",
                "training.batchSize must be a multiple of compute.nodes times "
                "compute.accelerator.extendedResource.count",
            ),
            (
                f"{_GPUS} <= 1 || {_BATCH} % {_GPUS} != 0 || !has(self.training) || "
                f"!has(self.training.microBatchSize) || ({_BATCH} / {_GPUS}) % self.training.microBatchSize == 0",
                "training.batchSize must be a multiple of training.microBatchSize times compute.nodes times "
                "compute.accelerator.extendedResource.count",
            ),
        )
    )

    model: ModelSpec
    dataset: DatasetSpec
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    export: ExportSpec = ExportSpec()
    output: OutputSpec
    compute: ComputeSpec = ComputeSpec()
    scheduling: SchedulingSpec = SchedulingSpec()
    tracking: TrackingSpec = TrackingSpec()
    retries: Retries = Retries()
    ttl_seconds_after_finished: int | None = Field(
        None,
        ge=0,
        le=315_360_000,
        description="Seconds after the job finishes until ttlTarget is deleted. Left out: nothing is deleted.",
    )
    ttl_target: TTLTarget = Field(
        "Children",
        description="Children: its Kubernetes Jobs with their pods, and its ConfigMaps. FineTuneJob: also the job "
        "itself; a GitOps tool would create it again, which trains again. Files in the bucket always stay.",
    )
    retry_generation: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Raise it to reopen a failed job at the stage that failed, with all its retries. If nothing was "
        "trained, the whole spec may be corrected before that; the job then starts again with prepare.",
    )
    suspend: bool = Field(
        False,
        description="true: the pod ends, after train has saved a checkpoint, and nothing is started. false: continue.",
    )
    start_deadline_seconds: int = Field(
        START_DEADLINE_SECONDS,
        ge=1,
        le=2_592_000,
        description="How long the pod of a stage may take to start before the job fails. "
        "Time in a queue is not counted.",
    )
    active_deadline_seconds: int | None = Field(
        None,
        ge=1,
        le=31_536_000,
        description="How long the Jobs of all stages and attempts may take in total before the job fails. "
        "Time in a queue and pauses between attempts are not counted. Left out: no limit.",
    )

    @model_validator(mode="after")
    def _divides(self) -> Self:
        training = self.training
        refused = shares.refusal(
            training.method,
            training.batch_size,
            training.micro_batch_size,
            self.compute.gpus,
        )
        if refused is not None:
            where = "spec.compute.nodes times spec.compute.accelerator.extendedResource.count"
            raise ValueError(f"{refused}; how many GPUs is {where}")
        return self
