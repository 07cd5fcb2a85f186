"""What the pods of all stages have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

from finetune_api import API_VERSION, KIND
from finetune_api.compute import Resources
from finetune_api.exit_codes import ExitCode
from finetune_api.job import ObjectMeta
from finetune_api.plan import PLAN_PATH
from finetune_api.spec import Stage
from finetune_operator import names
from finetune_operator.job_templates import disk, memory, volumes
from finetune_operator.job_templates.attempt import Attempt
from finetune_operator.job_templates.compute_digest import digest
from finetune_operator.job_templates.volumes import Mount

TERMINATION_LOG = "/dev/termination-log"
# The trainer's option for the checksum of its plan.
PLAN_SHA256 = "--plan-sha256"
_USER = 65532
_GRACE_SECONDS = 180
# Container runtimes that assign GPUs by this variable give all of them to an image that sets it, as CUDA images do,
# even if the pod has no GPU limit.
NO_GPU = {"NVIDIA_VISIBLE_DEVICES": "void"}


def owner(metadata: ObjectMeta) -> dict[str, Any]:
    """Return the owner reference by which the garbage collector deletes a child with its FineTuneJob."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": metadata.name,
        "uid": metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def job(
    attempt: Attempt,
    stage: Stage,
    mounts: Sequence[Mount],
    *,
    environment: Mapping[str, str] | None = None,
    devices: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    resources: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Render a Job that runs the trainer once: this operator retries, not the Job controller.

    Args:
        attempt: which attempt.
        stage: the trainer's subcommand.
        mounts: what the stage needs besides scratch space, the plan and the progress token.
        environment: variables besides those of the pod contract.
        devices: extended resources, as limits.
        arguments: of the trainer, besides those of every stage.
        resources: of the container, instead of those of the job and the defaults.
    """
    labels = names.attempt_labels(attempt.metadata, stage, attempt.number)
    compute = attempt.spec.compute
    metadata: dict[str, Any] = {"labels": {**(compute.pod_labels or {}), **labels}}
    if compute.pod_annotations:
        metadata["annotations"] = dict(compute.pod_annotations)
    all_mounts = [*volumes.working(attempt), *volumes.contract(attempt), *mounts]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.job(attempt.metadata, stage, attempt.number),
            "namespace": attempt.metadata.namespace,
            "labels": labels,
            "annotations": {names.COMPUTE_ANNOTATION: digest(compute, stage, report_only=attempt.report_only)},
            "ownerReferences": [owner(attempt.metadata)],
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podFailurePolicy": _failure_policy(),
            "template": {
                "metadata": metadata,
                "spec": _pod_spec(
                    attempt,
                    all_mounts,
                    arguments=[stage, *_arguments(attempt), *arguments],
                    environment=environment or {},
                    resources=_stage_resources(attempt, stage, devices or {}) if resources is None else resources,
                ),
            },
        },
    }


def _failure_policy() -> dict[str, Any]:
    """Return rules that fail the Job in any case and put the cause into its condition, which outlives the pod."""
    codes = sorted(code for code in ExitCode if code is not ExitCode.OK)
    return {
        "rules": [
            {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": names.CONTAINER, "operator": "In", "values": [int(c) for c in codes]},
            },
        ]
    }


def _pod_spec(
    attempt: Attempt,
    mounts: Sequence[Mount],
    *,
    arguments: list[str],
    environment: Mapping[str, str],
    resources: dict[str, Any],
) -> dict[str, Any]:
    compute = attempt.spec.compute
    pod_volumes, volume_mounts = volumes.render(mounts)
    optional: dict[str, Any] = {
        "nodeSelector": compute.node_selector,
        "tolerations": [t.to_json() for t in compute.tolerations] or None,
        "affinity": _affinity(attempt.avoid_nodes),
        "schedulerName": attempt.spec.scheduling.scheduler_name,
        "priorityClassName": compute.priority_class_name,
        "runtimeClassName": compute.runtime_class_name,
        "serviceAccountName": compute.service_account_name,
        "imagePullSecrets": [s.to_json() for s in compute.image_pull_secrets] or None,
    }
    security: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": 0,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if compute.fs_group is not None:
        security["fsGroup"] = compute.fs_group
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": security,
        **{k: v for k, v in optional.items() if v is not None},
        "volumes": pod_volumes,
        "containers": [
            {
                "name": names.CONTAINER,
                "image": attempt.snapshot.trainer_image,
                "imagePullPolicy": attempt.settings.image_pull_policy,
                "args": arguments,
                "env": [{"name": k, "value": v} for k, v in (_environment(attempt) | dict(environment)).items()],
                "resources": resources,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "runAsNonRoot": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "terminationMessagePath": TERMINATION_LOG,
                # Not from the log, which may contain what must not get into the status.
                "terminationMessagePolicy": "File",
                "volumeMounts": volume_mounts,
            }
        ],
    }


def _arguments(attempt: Attempt) -> list[str]:
    return ["--plan", PLAN_PATH, PLAN_SHA256, attempt.snapshot.plan_sha256, "--attempt", str(attempt.number)]


def _environment(attempt: Attempt) -> dict[str, str]:
    metadata = attempt.metadata
    path = f"/v1/namespaces/{metadata.namespace}/finetunejobs/{metadata.name}/progress"
    return {
        "FINETUNE_SCRATCH": volumes.SCRATCH,
        "FINETUNE_TERMINATION_LOG": TERMINATION_LOG,
        "FINETUNE_PROGRESS_URL": attempt.settings.progress_url_base + path,
        "FINETUNE_PROGRESS_TOKEN_FILE": volumes.PROGRESS_TOKEN,
        "FINETUNE_PROGRESS_CA_FILE": volumes.PROGRESS_CA,
    }


def _stage_resources(attempt: Attempt, stage: Stage, devices: Mapping[str, str]) -> dict[str, Any]:
    compute = attempt.spec.compute
    return disk.requested(
        _resources(memory.defaults(attempt, stage), getattr(compute.resources, stage), dict(devices)),
        disk.need(attempt, stage),
        compute.scratch.size if compute.scratch else None,
    )


def _resources(defaults: Resources, own: Resources | None, devices: dict[str, str]) -> dict[str, Any]:
    """Merge by resource. A limit without a request replaces the default request, which might be above the limit."""
    own = own or Resources()
    limits = {**(defaults.limits or {}), **(own.limits or {}), **devices}
    kept = {k: v for k, v in (defaults.requests or {}).items() if k not in (own.limits or {})}
    requests = {**kept, **(own.requests or {})}
    return {k: v for k, v in (("requests", requests), ("limits", limits)) if v}


def _affinity(avoid_nodes: Sequence[str]) -> dict[str, Any] | None:
    if not avoid_nodes:
        return None
    # By the node's name, which may differ from its hostname label. The API allows one value per field requirement.
    fields = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in avoid_nodes]
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
