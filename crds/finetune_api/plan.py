"""Everything that the trainer knows about a job: rendered from the custom resource, with all defaults filled in."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from finetune_api.base import Model
from finetune_api.dataset_spec import DatasetFormat, DatasetSource
from finetune_api.policy import Policy
from finetune_api.references import S3Connection
from finetune_api.spec import GGUFType, MergeBase, ReportLanguage
from finetune_api.training_spec import Method

# Raised when an older trainer would misread a new plan. Newer trainers read all earlier versions.
PLAN_VERSION = 4

# Where the operator mounts what the job references. The plan has these paths.
PLAN_PATH = "/etc/finetune/plan/plan.json"
MODEL_MOUNT = "/var/run/finetune/model"
TEMPLATE_MOUNT = "/var/run/finetune/template"
DATASET_MOUNT = "/var/run/finetune/dataset"
SECRETS_MOUNT = "/var/run/finetune/secrets"
CA_MOUNT = "/var/run/finetune/ca"


class Defaults(Model):
    """Settings of the chart that apply if a job leaves them out."""

    s3: S3Connection = S3Connection()
    hugging_face_endpoint: str | None = Field(None, description="Base URL of a hub mirror.")
    allow_cpu: bool = Field(False, alias="allowCPU")
    policy: Policy = Policy()


class S3Target(Model):
    """An S3 location with its credentials as a mounted folder: one file per AWS_... key."""

    uri: str
    endpoint: str | None = None
    region: str | None = None
    force_path_style: bool = False
    credentials_dir: str | None = Field(None, description="None: the pod's own identity or the environment.")
    ca_file: str | None = None


class HubSource(Model):
    """A repository on a hub."""

    repository: str
    revision: str
    endpoint: str | None = None
    token_file: str | None = None


class AdapterPlan(Model):
    """Where an earlier adapter comes from: a folder, or the newest complete run of another job."""

    s3: S3Target | None = None
    path: str | None = None
    # The name of a FineTuneJob in the job's namespace, below the same output.
    job: str | None = None


class WeightsPlan(Model):
    """Where a model's 16-bit weights come from: exactly one of hub, s3, path."""

    hub: HubSource | None = None
    s3: S3Target | None = None
    path: str | None = None


class ModelPlan(Model):
    """Where the weights come from: exactly one of hub, s3, path."""

    hub: HubSource | None = None
    s3: S3Target | None = None
    path: str | None = Field(None, description="A folder that is there already.")
    quantization: Literal["NF4", "None"]
    max_sequence_length: int
    adapter: AdapterPlan | None = None


class HubFile(HubSource):
    """One file of a dataset repository."""

    path: str


class SourcePlan(Model):
    """One dataset file: exactly one of s3, path, hub, url."""

    name: str
    s3: S3Target | None = None
    # For s3 and url.
    sha256: str | None = None
    path: str | None = None
    hub: HubFile | None = None
    url: str | None = None
    format: DatasetFormat = "Auto"


# Members that a later version added have a default with the meaning of plans without them, so that a job accepted by an
# older operator continues with its plan.
class DatasetPlan(Model):
    """The data and what is done with it before training."""

    sources: list[SourcePlan]
    holdout_sources: list[SourcePlan] = []
    # The job's format; each source has the one that applies to it.
    format: DatasetFormat
    columns: dict[str, str] = {}
    prompt_template: Literal["Auto", "Model", "Alpaca"]
    template_file: str | None = Field(None, description="A Jinja chat template, instead of prompt_template.")
    chat_template_kwargs: dict[str, str] = {}
    system_prompt: str | None = None
    minimum_examples: int
    invalid_rows: Literal["Fail", "Drop"]
    duplicates: Literal["Drop", "Keep"] = "Drop"
    truncation: Literal["Warn", "Drop", "Fail"] = "Warn"
    holdout_percent: int


class LoRAPlan(Model):
    """The adapter, numbers as numbers."""

    rank: int
    alpha: int
    dropout: float
    target_modules: list[str]
    use_rslora: bool = Field(alias="useRSLoRA")


class PreferencePlan(Model):
    """The settings of DPO, ORPO and KTO; the weights are KTO's."""

    beta: float
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0


class TrainingPlan(Model):
    """Every hyper-parameter, explicit."""

    method: Method
    preference: PreferencePlan | None = None
    lora: LoRAPlan
    batch_size: int
    # None: the trainer takes the largest divisor of batch_size that the memory estimate allows.
    micro_batch_size: int | None = None
    # Neither: the trainer chooses by the number of training rows.
    max_steps: int | None = None
    epochs: int | None = None
    learning_rate: float
    learning_rate_schedule: Literal["Linear", "Cosine", "Constant"]
    # If warmup_ratio is set, it replaces warmup_steps. Neither: the trainer chooses by the number of steps.
    warmup_steps: int | None = None
    warmup_ratio: float | None = None
    weight_decay: float
    max_grad_norm: float
    adam_beta2: float = 0.999
    neftune_noise_alpha: float | None = None
    keep: Literal["Best", "Last"] = "Last"
    early_stopping_patience: int | None = None
    optimizer: Literal["AdamW8bit", "AdamW"]
    precision: Literal["Auto", "BF16", "FP16"]
    gradient_checkpointing: Literal["Auto", "None", "Standard", "Offload"]
    train_on_responses_only: bool
    seed: int
    checkpoint_seconds: int | None = None
    checkpoint_steps: int | None = None
    # None: training may hang forever.
    hang_timeout_seconds: int | None = None


class GatePlan(Model):
    """What the operator does with the verdict; the trainer only reports it."""

    holdout_loss: Literal["MustImprove"]
    on_miss: Literal["Warn", "Fail"]


class EvaluationPlan(Model):
    """How the result is judged."""

    prompts: list[str]
    max_new_tokens: int
    gate: GatePlan | None = None


class ExportPlan(Model):
    """The files made from the adapter."""

    gguf: list[GGUFType]
    lora_gguf: bool = Field(False, alias="loraGGUF")
    merged: bool = False
    # None: Original if the model or `original` has 16-bit weights, else Trained.
    merge_base: MergeBase | None = None
    original: WeightsPlan | None = None
    report_language: ReportLanguage = "Auto"

    @property
    def merges(self) -> bool:
        """Whether the adapter is merged into the model."""
        return bool(self.gguf) or self.merged


class OutputPlan(Model):
    """Where everything is written: exactly one of s3, path."""

    s3: S3Target | None = None
    path: str | None = Field(None, description="A local folder, for runs without Kubernetes.")
    reuse: Literal["Identical", "Never"] = "Never"


class MLflowPlan(Model):
    """An MLflow server; the credentials are a mounted folder with one file per MLFLOW_TRACKING_... key."""

    uri: str
    experiment: str
    credentials_dir: str | None = None


class JobIdentity(Model):
    """Names the folders in the bucket."""

    namespace: str
    name: str
    uid: str


class Plan(Model):
    """`plan.json`."""

    plan_version: Annotated[int, Field(ge=1)] = PLAN_VERSION
    job: JobIdentity
    model: ModelPlan
    dataset: DatasetPlan
    training: TrainingPlan
    evaluation: EvaluationPlan
    export: ExportPlan
    output: OutputPlan
    mlflow: MLflowPlan | None = None
    # spec.compute.accelerator.memoryMiB: the limit of the memory estimate before there is a GPU.
    gpu_memory_mib: int | None = Field(None, alias="gpuMemoryMiB")
    policy: Policy = Policy()
    allow_cpu: bool = Field(False, alias="allowCPU")

    def to_bytes(self) -> bytes:
        """Return the canonical bytes: the same plan has the same checksum everywhere."""
        return json.dumps(self.to_json(), ensure_ascii=False, sort_keys=True, indent=1).encode()


def sha256(plan_bytes: bytes) -> str:
    """Return the checksum that the pod's arguments carry and the trainer checks first."""
    return hashlib.sha256(plan_bytes).hexdigest()


def credentials_dir(secret_name: str) -> str:
    """Return where the pod mounts the keys of an S3 Secret."""
    return f"{SECRETS_MOUNT}/{secret_name}"


def token_file(secret_name: str, key: str) -> str:
    """Return where the pod mounts a hub token."""
    return f"{SECRETS_MOUNT}/{secret_name}/{key}"


def ca_file(config_map_name: str, key: str) -> str:
    """Return where the pod mounts a CA bundle."""
    return f"{CA_MOUNT}/{config_map_name}/{key}"


def source_name(index: int, source: DatasetSource) -> str:
    """Return the name of a dataset source in messages; `index` counts from 0."""
    return source.name or f"source-{index + 1}"


def dataset_mount(index: int) -> str:
    """Return where the pod mounts the ConfigMap or volume of a dataset source; `index` counts from 0."""
    return f"{DATASET_MOUNT}/{index}"
