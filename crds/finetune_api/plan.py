"""The trainer's whole view of a job: rendered from the custom resource, all defaults filled in."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from finetune_api.base import Model
from finetune_api.job import FineTuneJob
from finetune_api.references import S3Connection
from finetune_api.spec import (
    DatasetSource,
    DatasetSpec,
    EvaluationSpec,
    ExportSpec,
    GGUFType,
    ModelSpec,
    TrainingSpec,
)

PLAN_VERSION = 1
DEFAULT_MAX_STEPS = 60
DEFAULT_CHECKPOINT_SECONDS = 300
DEFAULT_MICRO_BATCH_SIZE = 2

# Where the pod finds what the job references. The operator mounts it there, the plan points at it.
PLAN_PATH = "/etc/finetune/plan/plan.json"
MODEL_MOUNT = "/var/run/finetune/model"
DATASET_MOUNT = "/var/run/finetune/dataset"
SECRETS_MOUNT = "/var/run/finetune/secrets"
CA_MOUNT = "/var/run/finetune/ca"


class Defaults(Model):
    """What the administrator set in the chart and a job may leave out."""

    s3: S3Connection = S3Connection()
    hugging_face_endpoint: str | None = Field(None, description="Base URL of a hub mirror.")
    allow_cpu: bool = Field(False, alias="allowCPU")


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


class ModelPlan(Model):
    """Where the weights come from: exactly one of hub, s3, path."""

    hub: HubSource | None = None
    s3: S3Target | None = None
    path: str | None = Field(None, description="A folder that is there already.")
    quantization: Literal["NF4", "None"]
    max_sequence_length: int


class SourcePlan(Model):
    """One dataset file: exactly one of s3, path."""

    name: str
    s3: S3Target | None = None
    sha256: str | None = None
    path: str | None = None


class DatasetPlan(Model):
    """The data and what is done with it before training."""

    sources: list[SourcePlan]
    format: Literal["Auto", "Alpaca", "Messages"]
    prompt_template: Literal["Auto", "Model", "Alpaca"]
    system_prompt: str | None = None
    minimum_examples: int
    invalid_rows: Literal["Fail", "Drop"]
    holdout_percent: int


class LoRAPlan(Model):
    """The adapter, numbers as numbers."""

    rank: int
    alpha: int
    dropout: float
    target_modules: list[str]
    use_rslora: bool = Field(alias="useRSLoRA")


class TrainingPlan(Model):
    """Every hyper-parameter, explicit."""

    method: Literal["SFT"]
    lora: LoRAPlan
    batch_size: int
    micro_batch_size: int
    max_steps: int | None = None
    epochs: int | None = None
    learning_rate: float
    learning_rate_schedule: Literal["Linear", "Cosine", "Constant"]
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    optimizer: Literal["AdamW8bit", "AdamW"]
    precision: Literal["Auto", "BF16", "FP16"]
    gradient_checkpointing: Literal["Auto", "None", "Standard", "Offload"]
    train_on_responses_only: bool
    seed: int
    checkpoint_seconds: int | None = None
    checkpoint_steps: int | None = None


class EvaluationPlan(Model):
    """The questions asked before and after."""

    prompts: list[str]
    max_new_tokens: int


class ExportPlan(Model):
    """The files made from the adapter besides itself."""

    gguf: list[GGUFType]


class OutputPlan(Model):
    """Where everything is written: exactly one of s3, path."""

    s3: S3Target | None = None
    path: str | None = Field(None, description="A local folder, for runs without Kubernetes.")


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
    allow_cpu: bool = Field(False, alias="allowCPU")

    def to_bytes(self) -> bytes:
        """Return the canonical bytes: the same plan has the same checksum everywhere."""
        return json.dumps(self.to_json(), ensure_ascii=False, sort_keys=True, indent=1).encode()


def sha256(plan_bytes: bytes) -> str:
    """Return the checksum that the pod's arguments carry and the trainer checks first."""
    return hashlib.sha256(plan_bytes).hexdigest()


def credentials_dir(secret_name: str) -> str:
    """Where the pod mounts the keys of an S3 Secret."""
    return f"{SECRETS_MOUNT}/{secret_name}"


def token_file(secret_name: str, key: str) -> str:
    """Where the pod mounts a hub token."""
    return f"{SECRETS_MOUNT}/{secret_name}/{key}"


def ca_file(config_map_name: str, key: str) -> str:
    """Where the pod mounts a CA bundle."""
    return f"{CA_MOUNT}/{config_map_name}/{key}"


def source_name(index: int, source: DatasetSource) -> str:
    """How messages name a dataset source; `index` counts from 0."""
    return source.name or f"source-{index + 1}"


def dataset_mount(index: int) -> str:
    """Where the pod mounts the ConfigMap or volume of a dataset source; `index` counts from 0."""
    return f"{DATASET_MOUNT}/{index}"


def _s3_target(uri: str, *connections: S3Connection) -> S3Target:
    """Merge connections member by member; the first that sets a member wins."""

    def first(member: str) -> object:
        return next((v for c in connections if (v := getattr(c, member)) is not None), None)

    secret = first("credentials_secret_ref")
    ca = first("ca_bundle")
    return S3Target.model_validate(
        {
            "uri": uri,
            "endpoint": first("endpoint"),
            "region": first("region"),
            "forcePathStyle": first("force_path_style") or False,
            "credentialsDir": credentials_dir(secret.name) if secret else None,  # type: ignore[attr-defined]
            "caFile": ca_file(ca.config_map.name, ca.config_map.key) if ca else None,  # type: ignore[attr-defined]
        }
    )


def _model(spec: ModelSpec, output: S3Connection, defaults: Defaults) -> ModelPlan:
    hub = s3 = path = None
    if spec.hugging_face:
        ref = spec.hugging_face.token_secret_ref
        hub = HubSource(
            repository=spec.hugging_face.repository,
            revision=spec.hugging_face.revision,
            endpoint=defaults.hugging_face_endpoint,
            token_file=token_file(ref.name, ref.key) if ref else None,
        )
    elif spec.s3:
        s3 = _s3_target(spec.s3.uri, spec.s3, output, defaults.s3)
    elif spec.persistent_volume_claim:
        path = f"{MODEL_MOUNT}/{spec.persistent_volume_claim.path}"
    return ModelPlan(
        hub=hub,
        s3=s3,
        path=path,
        quantization=spec.quantization,
        max_sequence_length=spec.max_sequence_length,
    )


def _source(index: int, spec: DatasetSource, output: S3Connection, defaults: Defaults) -> SourcePlan:
    name = source_name(index, spec)
    if spec.s3:
        return SourcePlan(name=name, s3=_s3_target(spec.s3.uri, spec.s3, output, defaults.s3), sha256=spec.s3.sha256)
    if spec.config_map:
        return SourcePlan(name=name, path=f"{dataset_mount(index)}/{spec.config_map.key}")
    assert spec.persistent_volume_claim is not None  # the model's own check
    return SourcePlan(name=name, path=f"{dataset_mount(index)}/{spec.persistent_volume_claim.path}")


def _dataset(spec: DatasetSpec, output: S3Connection, defaults: Defaults) -> DatasetPlan:
    return DatasetPlan(
        sources=[_source(i, s, output, defaults) for i, s in enumerate(spec.sources)],
        format=spec.format,
        prompt_template=spec.prompt_template,
        system_prompt=spec.system_prompt,
        minimum_examples=spec.checks.minimum_examples,
        invalid_rows=spec.checks.invalid_rows,
        holdout_percent=spec.holdout.percent,
    )


def _training(spec: TrainingSpec) -> TrainingPlan:
    checkpoint = spec.checkpoint
    timed = checkpoint.every_seconds is None and checkpoint.every_steps is None
    return TrainingPlan(
        method=spec.method,
        lora=LoRAPlan(
            rank=spec.lora.rank,
            alpha=spec.lora.alpha,
            dropout=float(spec.lora.dropout),
            target_modules=sorted(spec.lora.target_modules),
            use_rslora=spec.lora.use_rslora,
        ),
        batch_size=spec.batch_size,
        micro_batch_size=spec.micro_batch_size or _micro_batch(spec.batch_size),
        max_steps=DEFAULT_MAX_STEPS if spec.max_steps is None and spec.epochs is None else spec.max_steps,
        epochs=spec.epochs,
        learning_rate=float(spec.learning_rate),
        learning_rate_schedule=spec.learning_rate_schedule,
        warmup_steps=spec.warmup_steps,
        weight_decay=float(spec.weight_decay),
        max_grad_norm=float(spec.max_grad_norm),
        optimizer=spec.optimizer,
        precision=spec.precision,
        gradient_checkpointing=spec.gradient_checkpointing,
        train_on_responses_only=spec.train_on_responses_only,
        seed=spec.seed,
        checkpoint_seconds=DEFAULT_CHECKPOINT_SECONDS if timed else checkpoint.every_seconds,
        checkpoint_steps=checkpoint.every_steps,
    )


def _micro_batch(batch_size: int) -> int:
    return DEFAULT_MICRO_BATCH_SIZE if batch_size % DEFAULT_MICRO_BATCH_SIZE == 0 else 1


def _evaluation(spec: EvaluationSpec) -> EvaluationPlan:
    return EvaluationPlan(prompts=spec.prompts, max_new_tokens=spec.max_new_tokens)


def _export(spec: ExportSpec) -> ExportPlan:
    return ExportPlan(gguf=sorted(spec.gguf))


def render(job: FineTuneJob, defaults: Defaults) -> Plan:
    """Render the plan of a job. Pure: the same job and defaults give the same bytes."""
    spec = job.spec
    output = spec.output.s3
    return Plan(
        job=JobIdentity(namespace=job.metadata.namespace, name=job.metadata.name, uid=job.metadata.uid),
        model=_model(spec.model, output, defaults),
        dataset=_dataset(spec.dataset, output, defaults),
        training=_training(spec.training),
        evaluation=_evaluation(spec.evaluation),
        export=_export(spec.export),
        output=OutputPlan(s3=_s3_target(output.uri, output, defaults.s3)),
        allow_cpu=defaults.allow_cpu,
    )
