"""Names and labels of children. They are deterministic: creating a child twice finds the first one."""

from finetune_api.job import ObjectMeta
from finetune_api.spec import Stage

MANAGED_BY = "finetune-operator"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
JOB_LABEL = "finetune.dev/job"
JOB_UID_LABEL = "finetune.dev/job-uid"
STAGE_LABEL = "finetune.dev/stage"
ATTEMPT_LABEL = "finetune.dev/attempt"
# Set by Kubernetes: the index of a pod of an Indexed Job.
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
COMPUTE_ANNOTATION = "finetune.dev/compute"
CONTAINER = "trainer"


def _prefix(metadata: ObjectMeta) -> str:
    return f"{metadata.name}-{metadata.uid[:5]}"


def job(metadata: ObjectMeta, stage: Stage, attempt: int) -> str:
    """The Job of one attempt of one stage."""
    return f"{_prefix(metadata)}-{stage}-{attempt}"


def plan(metadata: ObjectMeta, sha256: str) -> str:
    """The ConfigMap that holds the plan of that checksum.

    The checksum is part of the name, so a plan of other settings that a former leader creates late does not take the
    name of the accepted one.
    """
    return f"{_prefix(metadata)}-plan-{sha256[:8]}"


def ca(metadata: ObjectMeta) -> str:
    """The ConfigMap that holds the certificate authority of the progress endpoint."""
    return f"{_prefix(metadata)}-ca"


def service(metadata: ObjectMeta) -> str:
    """The Service of the train pods. Its name must begin with a letter; that of a job need not."""
    return f"train-{_prefix(metadata)}"


def labels(metadata: ObjectMeta) -> dict[str, str]:
    """The labels of every child."""
    return {MANAGED_BY_LABEL: MANAGED_BY, JOB_LABEL: metadata.name, JOB_UID_LABEL: metadata.uid}


def attempt_labels(metadata: ObjectMeta, stage: Stage, attempt: int) -> dict[str, str]:
    """The labels of a Job and its pods."""
    return {**labels(metadata), STAGE_LABEL: stage, ATTEMPT_LABEL: str(attempt)}
