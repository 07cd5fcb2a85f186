"""What a user asks for: the spec of a FineTuneJob. Defaults stand here and nowhere else."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from finetune_api.base import (
    Decimal,
    Key,
    Model,
    Name,
    Quantity,
    RelativePath,
    Sha256,
    at_most_one_of,
    exactly_one_of,
    rules,
)

Stage = Literal["prepare", "train", "export"]
STAGES: tuple[Stage, ...] = ("prepare", "train", "export")
GGUFType = Literal["F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]

_NO_CLIMBING = (
    "!self.startsWith('/') && !self.split('/').exists(s, s == '..')",
    "must be a relative path without '..'",
)


class SecretKeyRef(Model):
    """One key of a Secret in the job's own namespace."""

    name: Name
    key: Key


class SecretRef(Model):
    """A Secret in the job's own namespace."""

    name: Name


class ConfigMapKeyRef(Model):
    """One key of a ConfigMap in the job's own namespace."""

    name: Name
    key: Key


class CABundle(Model):
    """Extra certificate authorities, PEM."""

    config_map: ConfigMapKeyRef


class S3Connection(Model):
    """How to reach an S3 server. A member left out is inherited from spec.output.s3, then from the chart."""

    endpoint: Annotated[str, Field(max_length=512, pattern=r"^https?://[^/\s]+$")] | None = Field(
        None, description="Base URL of the S3 server, without a path. Left out: AWS."
    )
    region: Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9-]+$")] | None = None
    force_path_style: bool | None = Field(
        None, description="Put the bucket in the path, as most on-premises servers want."
    )
    credentials_secret_ref: SecretRef | None = Field(
        None,
        description="Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and optionally AWS_SESSION_TOKEN. "
        "Left out: the pod's own identity.",
    )
    ca_bundle: CABundle | None = None


S3Uri = Annotated[str, Field(max_length=1024, pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?$")]


class S3Location(S3Connection):
    """A folder (prefix) in a bucket."""

    uri: S3Uri


class S3Object(S3Connection):
    """One object in a bucket."""

    uri: S3Uri
    sha256: Sha256 | None = Field(None, description="If set, the bytes must have this checksum.")


class VolumePath(Model):
    """A path in a PersistentVolumeClaim of the job's own namespace."""

    claim_name: Name
    path: Annotated[RelativePath, Field(json_schema_extra=rules(_NO_CLIMBING))] = Field(
        ".", description="Relative to the root of the volume."
    )


class HuggingFaceModel(Model):
    """A model repository on the Hugging Face hub, or on the mirror that the chart names."""

    repository: Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")]
    revision: Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9][\w./-]*$")] = Field(
        "main", description="Branch, tag or commit. It is resolved to a commit once, in prepare."
    )
    token_secret_ref: SecretKeyRef | None = None


class ModelSpec(Model):
    """The model to start from, in exactly one place."""

    model_config = ConfigDict(json_schema_extra=rules(exactly_one_of("huggingFace", "s3", "persistentVolumeClaim")))

    hugging_face: HuggingFaceModel | None = None
    s3: S3Location | None = None
    persistent_volume_claim: VolumePath | None = None
    quantization: Literal["NF4", "None"] = Field(
        "NF4", description="NF4 loads the linear layers in 4 bit (QLoRA); None keeps 16 bit (LoRA)."
    )
    max_sequence_length: int = Field(2048, ge=64, le=131072, description="In tokens. Longer examples are cut.")


class DatasetSource(Model):
    """One file of training examples: JSON Lines."""

    model_config = ConfigDict(json_schema_extra=rules(exactly_one_of("configMap", "s3", "persistentVolumeClaim")))

    name: Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] | None = Field(
        None, description="How messages name this source. Left out: source-<number from 1>."
    )
    config_map: ConfigMapKeyRef | None = None
    s3: S3Object | None = None
    persistent_volume_claim: VolumePath | None = None


class DatasetChecks(Model):
    """What is refused before a GPU is held."""

    minimum_examples: int = Field(50, ge=1, le=1_000_000)
    invalid_rows: Literal["Fail", "Drop"] = Field("Fail", description="Drop leaves invalid rows out and counts them.")


class Holdout(Model):
    """The rows kept aside to judge the result."""

    percent: int = Field(5, ge=1, le=20, description="At least 20 rows are held out, at most 200 and at most 20 %.")


class DatasetSpec(Model):
    """The training examples."""

    sources: Annotated[list[DatasetSource], Field(min_length=1, max_length=16)]
    format: Literal["Auto", "Alpaca", "Messages"] = "Auto"
    prompt_template: Literal["Auto", "Model", "Alpaca"] = Field(
        "Auto",
        description="Model: the tokenizer's chat template. Alpaca: the Alpaca text. "
        "Auto: the chat template where the weights know its tokens, else Alpaca.",
    )
    system_prompt: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    checks: DatasetChecks = DatasetChecks()
    holdout: Holdout = Holdout()


class LoRA(Model):
    """The adapter."""

    rank: int = Field(16, ge=1, le=512)
    alpha: int = Field(16, ge=1, le=2048)
    dropout: Decimal = Field("0", json_schema_extra=rules(("double(self) < 1.0", "must be at least 0 and below 1")))
    target_modules: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_]+$")]],
        Field(min_length=1, max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    use_rslora: bool = Field(False, alias="useRSLoRA")


class Checkpoint(Model):
    """How often training can be resumed from."""

    model_config = ConfigDict(json_schema_extra=rules(at_most_one_of("everySeconds", "everySteps")))

    every_seconds: int | None = Field(None, ge=1, le=86400, description="Left out, without everySteps: 300.")
    every_steps: int | None = Field(None, ge=1, le=1_000_000)


class TrainingSpec(Model):
    """The hyper-parameters."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            at_most_one_of("maxSteps", "epochs"),
            (
                "!has(self.microBatchSize) || self.microBatchSize <= (has(self.batchSize) ? self.batchSize : 8)",
                "microBatchSize must not be larger than batchSize",
            ),
            (
                "!has(self.microBatchSize) || (has(self.batchSize) ? self.batchSize : 8) % self.microBatchSize == 0",
                "batchSize must be a multiple of microBatchSize",
            ),
        )
    )

    method: Literal["SFT"] = "SFT"
    lora: LoRA = LoRA()
    batch_size: int = Field(8, ge=1, le=4096, description="Examples per optimizer step.")
    micro_batch_size: int | None = Field(
        None, ge=1, le=4096, description="Examples per forward pass. It changes the speed, not the result. Left out: 2."
    )
    max_steps: int | None = Field(
        None, ge=1, le=1_000_000, description="Optimizer steps. Left out, without epochs: 60."
    )
    epochs: int | None = Field(None, ge=1, le=1000)
    learning_rate: Decimal = Field(
        "2e-4", json_schema_extra=rules(("double(self) > 0.0 && double(self) <= 1.0", "must be above 0 and at most 1"))
    )
    learning_rate_schedule: Literal["Linear", "Cosine", "Constant"] = "Linear"
    warmup_steps: int = Field(5, ge=0, le=100_000)
    weight_decay: Decimal = Field(
        "0.01", json_schema_extra=rules(("double(self) <= 1.0", "must be at least 0 and at most 1"))
    )
    max_grad_norm: Decimal = Field("1.0", json_schema_extra=rules(("double(self) > 0.0", "must be above 0")))
    optimizer: Literal["AdamW8bit", "AdamW"] = "AdamW8bit"
    precision: Literal["Auto", "BF16", "FP16"] = Field(
        "Auto", description="Auto: BF16 where the GPU has it, else FP16."
    )
    gradient_checkpointing: Literal["Auto", "None", "Standard", "Offload"] = Field(
        "Auto", description="Auto: Offload (activations in host memory)."
    )
    train_on_responses_only: bool = Field(True, description="Learn the answers, not the questions.")
    seed: int = Field(3407, ge=0, le=2_147_483_647)
    checkpoint: Checkpoint = Checkpoint()


class EvaluationSpec(Model):
    """The questions asked before and after."""

    prompts: Annotated[list[Annotated[str, Field(min_length=1, max_length=2000)]], Field(max_length=16)] = []
    max_new_tokens: int = Field(256, ge=1, le=4096)


class ExportSpec(Model):
    """The files made from the adapter besides itself."""

    gguf: Annotated[list[GGUFType], Field(max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"})] = []


class OutputSpec(Model):
    """Where everything is written."""

    s3: S3Location


class ExtendedResource(Model):
    """A device that a device plugin advertises."""

    name: Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9_.-]+$")] = "nvidia.com/gpu"


class Accelerator(Model):
    """The device that train asks for."""

    extended_resource: ExtendedResource = ExtendedResource()


_RESOURCE_RULE = (
    "self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'])",
    "may set cpu, memory and ephemeral-storage only; the GPU is set by compute.accelerator",
)
ResourceList = Annotated[
    dict[Annotated[str, Field(max_length=64)], Quantity],
    Field(max_length=3, json_schema_extra=rules(_RESOURCE_RULE)),
]


class Resources(Model):
    """Requests and limits of one stage's container."""

    requests: ResourceList | None = None
    limits: ResourceList | None = None

    @field_validator("requests", "limits", mode="before")
    @classmethod
    def _numbers_to_strings(cls, value: Any) -> Any:
        """Accept `cpu: 2`, which YAML reads as a number."""
        if isinstance(value, dict):
            return {k: str(v) if isinstance(v, int | float) else v for k, v in value.items()}
        return value


class StageResources(Model):
    """Resources by stage."""

    prepare: Resources | None = None
    train: Resources | None = None
    export: Resources | None = None


class Scratch(Model):
    """Disk for models and intermediate files, in an emptyDir."""

    size: Quantity


class Toleration(Model):
    """As in a pod."""

    key: Annotated[str, Field(max_length=316)] | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: Annotated[str, Field(max_length=63)] | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = Field(None, ge=0)


LabelMap = Annotated[
    dict[Annotated[str, Field(max_length=316)], Annotated[str, Field(max_length=63)]], Field(max_length=32)
]
AnnotationMap = Annotated[
    dict[Annotated[str, Field(max_length=316)], Annotated[str, Field(max_length=4096)]], Field(max_length=32)
]
_OWN_PREFIX = (
    "!self.exists(k, k.startsWith('finetune.dev/') || k.startsWith('batch.kubernetes.io/') "
    "|| k == 'app.kubernetes.io/managed-by')",
    "must not set a key that the operator or Kubernetes sets itself",
)


class ComputeSpec(Model):
    """How the pods run. It changes no result and is not part of the run id."""

    accelerator: Accelerator = Accelerator()
    resources: StageResources = StageResources()
    scratch: Scratch | None = None
    node_selector: LabelMap | None = None
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = []
    priority_class_name: Name | None = None
    runtime_class_name: Name | None = None
    service_account_name: Name | None = None
    image_pull_secrets: Annotated[list[SecretRef], Field(max_length=8)] = []
    fs_group: int | None = Field(None, ge=0, le=2_147_483_647)
    pod_labels: Annotated[LabelMap, Field(json_schema_extra=rules(_OWN_PREFIX))] | None = None
    pod_annotations: Annotated[AnnotationMap, Field(json_schema_extra=rules(_OWN_PREFIX))] | None = None


class Retries(Model):
    """What happens after a failure that may pass."""

    maximum: int = Field(3, ge=0, le=20, description="Counted failures per stage before the job fails.")


def _immutable(member: str) -> tuple[str, str]:
    return (
        f"has(self.{member}) == has(oldSelf.{member}) && (!has(self.{member}) || self.{member} == oldSelf.{member})",
        f"{member} is immutable; create a FineTuneJob with a new name",
    )


class FineTuneJobSpec(Model):
    """One fine-tuning run."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(_immutable(m) for m in ("model", "dataset", "training", "evaluation", "export", "output"))
        )
    )

    model: ModelSpec
    dataset: DatasetSpec
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    export: ExportSpec = ExportSpec()
    output: OutputSpec
    compute: ComputeSpec = ComputeSpec()
    retries: Retries = Retries()
