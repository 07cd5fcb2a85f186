"""The trainer's whole view of a job: rendered from the custom resource, all defaults filled in."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from finetune_api.base import Model
from finetune_api.dataset_spec import DatasetFormat, DatasetSource, DatasetSpec
from finetune_api.job import FineTuneJob
from finetune_api.model_spec import AdapterSource, ModelSpec
from finetune_api.policy import Policy
from finetune_api.references import S3Connection
from finetune_api.spec import EvaluationSpec, ExportSpec, GGUFType
from finetune_api.training_spec import DPOSpec, KTOSpec, Method, ORPOSpec, TrainingSpec

PLAN_VERSION = 1
DEFAULT_MAX_STEPS = 60
DEFAULT_CHECKPOINT_SECONDS = 300
DEFAULT_WARMUP_STEPS = 5
DEFAULT_HOLDOUT_PERCENT = 5
# Preference losses move a model far more per step than the plain loss does: TRL's own defaults, but for SFT, which is
# the guide's.
DEFAULT_LEARNING_RATES: dict[Method, str] = {"SFT": "2e-4", "DPO": "5e-6", "ORPO": "8e-6", "KTO": "5e-6"}

# Where the pod finds what the job references. The operator mounts it there, the plan points at it.
PLAN_PATH = "/etc/finetune/plan/plan.json"
MODEL_MOUNT = "/var/run/finetune/model"
TEMPLATE_MOUNT = "/var/run/finetune/template"
DATASET_MOUNT = "/var/run/finetune/dataset"
SECRETS_MOUNT = "/var/run/finetune/secrets"
CA_MOUNT = "/var/run/finetune/ca"


class Defaults(Model):
    """What the administrator set in the chart and a job may leave out."""

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
    # Of s3 and url.
    sha256: str | None = None
    path: str | None = None
    hub: HubFile | None = None
    url: str | None = None
    format: DatasetFormat = "Auto"


# Members that came with a later version have a default that means what plans without them meant: a job that was
# accepted by an older operator goes on with its plan.
class DatasetPlan(Model):
    """The data and what is done with it before training."""

    sources: list[SourcePlan]
    holdout_sources: list[SourcePlan] = []
    # The job's; each source has the one that counts.
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
    max_steps: int | None = None
    epochs: int | None = None
    learning_rate: float
    learning_rate_schedule: Literal["Linear", "Cosine", "Constant"]
    # Of the two, one counts: warmup_ratio where it is set.
    warmup_steps: int
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


class GatePlan(Model):
    """What the operator makes of the verdict; the trainer only reports it."""

    holdout_loss: Literal["MustImprove"]
    on_miss: Literal["Warn", "Fail"]


class EvaluationPlan(Model):
    """How the result is judged."""

    prompts: list[str]
    max_new_tokens: int
    gate: GatePlan | None = None


class ExportPlan(Model):
    """The files made from the adapter besides itself."""

    gguf: list[GGUFType]


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
    # spec.compute.accelerator.memoryMiB: what the memory estimate is held against before there is a GPU.
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
        adapter=_adapter(spec.adapter, output, defaults),
    )


def _adapter(spec: AdapterSource | None, output: S3Connection, defaults: Defaults) -> AdapterPlan | None:
    if spec is None:
        return None
    if spec.s3:
        return AdapterPlan(s3=_s3_target(spec.s3.uri, spec.s3, output, defaults.s3))
    assert spec.fine_tune_job_ref is not None  # the model's own check
    return AdapterPlan(job=spec.fine_tune_job_ref.name)


def _source(
    index: int, name: str, spec: DatasetSource, dataset: DatasetSpec, output: S3Connection, defaults: Defaults
) -> SourcePlan:
    common = SourcePlan(name=name, format=spec.format or dataset.format)
    if spec.s3:
        target = _s3_target(spec.s3.uri, spec.s3, output, defaults.s3)
        return common.model_copy(update={"s3": target, "sha256": spec.s3.sha256})
    if spec.config_map:
        return common.model_copy(update={"path": f"{dataset_mount(index)}/{spec.config_map.key}"})
    if spec.persistent_volume_claim:
        return common.model_copy(update={"path": f"{dataset_mount(index)}/{spec.persistent_volume_claim.path}"})
    if spec.http:
        return common.model_copy(update={"url": spec.http.url, "sha256": spec.http.sha256})
    assert spec.hugging_face is not None  # the model's own check
    ref = spec.hugging_face.token_secret_ref
    hub = HubFile(
        repository=spec.hugging_face.repository,
        revision=spec.hugging_face.revision,
        endpoint=spec.hugging_face.endpoint or defaults.hugging_face_endpoint,
        token_file=token_file(ref.name, ref.key) if ref else None,
        path=spec.hugging_face.path,
    )
    return common.model_copy(update={"hub": hub})


def _dataset(spec: DatasetSpec, output: S3Connection, defaults: Defaults) -> DatasetPlan:
    held = spec.holdout.sources or []
    first = len(spec.sources)
    template = spec.template_ref
    return DatasetPlan(
        sources=[_source(i, source_name(i, s), s, spec, output, defaults) for i, s in enumerate(spec.sources)],
        holdout_sources=[
            _source(first + i, s.name or f"holdout-{i + 1}", s, spec, output, defaults) for i, s in enumerate(held)
        ],
        format=spec.format,
        columns=spec.columns or {},
        prompt_template=spec.prompt_template or "Auto",
        template_file=f"{TEMPLATE_MOUNT}/{template.key}" if template else None,
        chat_template_kwargs=spec.chat_template_kwargs or {},
        system_prompt=spec.system_prompt,
        minimum_examples=spec.checks.minimum_examples,
        invalid_rows=spec.checks.invalid_rows,
        duplicates=spec.checks.duplicates,
        truncation=spec.checks.truncation,
        holdout_percent=spec.holdout.percent or DEFAULT_HOLDOUT_PERCENT,
    )


def _preference(spec: TrainingSpec) -> PreferencePlan | None:
    if spec.method == "DPO":
        return PreferencePlan(beta=float((spec.dpo or DPOSpec()).beta))
    if spec.method == "ORPO":
        return PreferencePlan(beta=float((spec.orpo or ORPOSpec()).beta))
    if spec.method == "KTO":
        kto = spec.kto or KTOSpec()
        return PreferencePlan(
            beta=float(kto.beta),
            desirable_weight=float(kto.desirable_weight),
            undesirable_weight=float(kto.undesirable_weight),
        )
    return None


def _training(spec: TrainingSpec) -> TrainingPlan:
    checkpoint = spec.checkpoint
    timed = checkpoint.every_seconds is None and checkpoint.every_steps is None
    return TrainingPlan(
        method=spec.method,
        preference=_preference(spec),
        lora=LoRAPlan(
            rank=spec.lora.rank,
            alpha=spec.lora.alpha,
            dropout=float(spec.lora.dropout),
            target_modules=sorted(spec.lora.target_modules),
            use_rslora=spec.lora.use_rslora,
        ),
        batch_size=spec.batch_size,
        micro_batch_size=spec.micro_batch_size,
        max_steps=DEFAULT_MAX_STEPS if spec.max_steps is None and spec.epochs is None else spec.max_steps,
        epochs=spec.epochs,
        learning_rate=float(spec.learning_rate or DEFAULT_LEARNING_RATES[spec.method]),
        learning_rate_schedule=spec.learning_rate_schedule,
        warmup_steps=DEFAULT_WARMUP_STEPS if spec.warmup_steps is None else spec.warmup_steps,
        warmup_ratio=_optional_float(spec.warmup_ratio),
        weight_decay=float(spec.weight_decay),
        max_grad_norm=float(spec.max_grad_norm),
        adam_beta2=float(spec.adam_beta2),
        neftune_noise_alpha=_optional_float(spec.neftune_noise_alpha),
        keep=spec.keep,
        early_stopping_patience=spec.early_stopping_patience,
        optimizer=spec.optimizer,
        precision=spec.precision,
        gradient_checkpointing=spec.gradient_checkpointing,
        train_on_responses_only=spec.train_on_responses_only,
        seed=spec.seed,
        checkpoint_seconds=DEFAULT_CHECKPOINT_SECONDS if timed else checkpoint.every_seconds,
        checkpoint_steps=checkpoint.every_steps,
    )


def _optional_float(value: str | None) -> float | None:
    return None if value is None else float(value)


def _evaluation(spec: EvaluationSpec) -> EvaluationPlan:
    gate = GatePlan(holdout_loss=spec.gate.holdout_loss, on_miss=spec.gate.on_miss) if spec.gate else None
    return EvaluationPlan(prompts=spec.prompts, max_new_tokens=spec.max_new_tokens, gate=gate)


def _mlflow(job: FineTuneJob) -> MLflowPlan | None:
    spec = job.spec.tracking.mlflow
    if spec is None:
        return None
    return MLflowPlan(
        uri=spec.uri,
        experiment=spec.experiment or f"{job.metadata.namespace}/{job.metadata.name}",
        credentials_dir=credentials_dir(spec.credentials_secret_ref.name) if spec.credentials_secret_ref else None,
    )


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
        output=OutputPlan(s3=_s3_target(output.uri, output, defaults.s3), reuse=spec.output.reuse),
        mlflow=_mlflow(job),
        gpu_memory_mib=spec.compute.accelerator.memory_mib,
        policy=defaults.policy,
        allow_cpu=defaults.allow_cpu,
    )
