"""How the pods of a job run: `spec.compute`."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from finetune_api.base import Model, Name, Quantity, patterned, rules
from finetune_api.references import SecretRef

# Defaults that validation rules repeat.
NODES = GPUS_PER_NODE = 1
# What the container of each stage requests of CPU and memory unless the job says otherwise. It has no limits.
DEFAULT_REQUESTS: Mapping[Literal["prepare", "train", "export"], Mapping[str, str]] = {
    "prepare": {"cpu": "1", "memory": "2Gi"},
    "train": {"cpu": "2", "memory": "8Gi"},
    # While the size of the model is not known.
    "export": {"cpu": "2", "memory": "8Gi"},
}
# Export's memory once prepare has counted the model's weights: quantizing 8 billion takes 3.6 GiB. The rest is for
# llama.cpp's context and for part of the file that it maps, which would be read from the disk again and again.
EXPORT_MEMORY_MIB = 3 * 1024
EXPORT_WEIGHTS_PER_BYTE = 2


class ExtendedResource(Model):
    """A device that a device plugin advertises."""

    name: Annotated[
        str,
        patterned(
            r"^[a-z0-9.-]+/[A-Za-z0-9_.-]+$", "must be <domain>/<device>, such as nvidia.com/gpu", max_length=253
        ),
    ] = Field("nvidia.com/gpu", description="As in the node's allocatable resources.")
    count: int = Field(
        GPUS_PER_NODE,
        ge=1,
        le=16,
        description="GPUs per node for train. Each has the whole model and processes an equal share of every batch, so "
        "training.batchSize must be a multiple of nodes times count. The result is that of one GPU. Method SFT only.",
    )


class Accelerator(Model):
    """The device that train requests."""

    extended_resource: ExtendedResource = ExtendedResource()
    memory_mib: int | None = Field(
        None,
        ge=1024,
        le=10_000_000,
        alias="memoryMiB",
        description="Memory of the GPU, such as 16000. If set, prepare refuses a job that will not fit.",
    )


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


def _default(stage: Literal["prepare", "train"]) -> str:
    return " and ".join(f"{name} {quantity}" for name, quantity in DEFAULT_REQUESTS[stage].items())


class StageResources(Model):
    """Resources by stage. What is left out is requested as each stage says; there are no limits by default."""

    prepare: Resources | None = Field(None, description=f"Requests by default: {_default('prepare')}.")
    train: Resources | None = Field(
        None,
        description=f"Requests by default: {_default('train')}, ephemeral-storage as in status.scratch.trainMiB, and "
        "the GPUs of compute.accelerator.",
    )
    export: Resources | None = Field(
        None,
        description=f"Requests by default: cpu {DEFAULT_REQUESTS['export']['cpu']}, memory "
        f"{EXPORT_MEMORY_MIB // 1024}Gi plus a byte for every {EXPORT_WEIGHTS_PER_BYTE} weights of the model (7Gi for "
        "8 billion), and ephemeral-storage as in status.scratch.exportMiB.",
    )


class Scratch(Model):
    """Disk for models and intermediate files, in an emptyDir."""

    size: Quantity = Field(
        description="Limit, such as 100Gi. About four times the size of the model in 16 bit is enough."
    )


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
    nodes: int = Field(
        NODES,
        ge=1,
        le=16,
        description="Pods that train together, each with the GPUs of accelerator. They must be able to reach each "
        "other on every port, by their DNS names in the cluster.",
    )
    resources: StageResources = StageResources()
    scratch: Scratch | None = None
    node_selector: LabelMap | None = Field(None, description="Labels that a node must have, in all three stages.")
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = Field(
        [], description="Taints of nodes to accept, in all three stages."
    )
    priority_class_name: Name | None = None
    runtime_class_name: Name | None = None
    service_account_name: Name | None = Field(
        None, description="For access to S3 by workload identity. Its token is not mounted into the pods."
    )
    image_pull_secrets: Annotated[list[SecretRef], Field(max_length=8)] = Field(
        [], description="Secrets to pull the trainer image with, in the job's own namespace."
    )
    fs_group: int | None = Field(
        None, ge=0, le=2_147_483_647, description="Group that owns the mounted volumes, if they need one."
    )
    pod_labels: Annotated[LabelMap, Field(json_schema_extra=rules(_OWN_PREFIX))] | None = None
    pod_annotations: Annotated[AnnotationMap, Field(json_schema_extra=rules(_OWN_PREFIX))] | None = None

    @property
    def gpus(self) -> int:
        """The number of GPUs that train uses in total."""
        return self.accelerator.extended_resource.count * self.nodes
