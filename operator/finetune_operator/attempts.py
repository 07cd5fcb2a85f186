"""What became of one attempt of a stage, read from its Job and pods."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from finetune_api.exit_codes import ExitCode
from finetune_api.result import StageResult
from finetune_api.spec import Stage
from finetune_api.status import StageStatus
from finetune_operator import children, names
from finetune_operator.observation import Object

# The Job's Failed condition says this, which outlives the pod: pkg/controller/job/pod_failure_policy.go.
_EXIT_CODE = re.compile(r"^Container trainer for pod \S+ failed with exit code (\d+) matching ")
_DISRUPTED = re.compile(r"^Pod \S+ has condition DisruptionTarget matching ")


@dataclass(frozen=True)
class Ended:
    """An attempt that is over: none of its pods runs any more, and no other will."""

    stage: Stage
    succeeded: bool
    # Its Job was deleted before it succeeded: whatever the pod said on its way out is no failure of the stage.
    deleted: bool
    # As Kubernetes writes it.
    completion_time: str
    # The Job's own words.
    message: str
    # Whether a pod of the attempt is still there to be read.
    has_pod: bool
    exit_code: int | None
    # None if there is no pod, or if its termination message is not one of ours.
    result: StageResult | None
    out_of_memory: bool
    disrupted: bool
    # The kubelet's words if it evicted the pod for using too much.
    eviction: str | None
    node: str | None


def ended(job: Object, pods: Sequence[Object], stage: Stage, attempt: int) -> Ended | None:
    """Return how an attempt ended, or None while its Job is live.

    A Job that is being deleted may never say how it ended, so that its pods decide.
    """
    own = sorted(
        (p for p in pods if children.is_pod_of(p, stage, attempt)),
        key=lambda p: str(p["metadata"].get("creationTimestamp", "")),
    )
    pod = own[-1] if own else None
    state = (children.terminated(pod) if pod else None) or {}
    deleted = children.is_being_deleted(job)
    complete, failed = children.condition(job, "Complete"), children.condition(job, "Failed")
    outcome = complete or failed
    if outcome is None and deleted and own and not any(map(children.is_live_pod, own)) and state.get("finishedAt"):
        outcome = {"lastTransitionTime": state["finishedAt"]}
        complete = outcome if state.get("exitCode") == 0 else None
    if outcome is None:
        return None
    message = str(outcome.get("message", ""))
    quoted = _EXIT_CODE.match(message)
    evicted = pod is not None and (pod.get("status") or {}).get("reason") == "Evicted"
    disrupted = pod is not None and children.condition(pod, "DisruptionTarget") is not None
    return Ended(
        stage=stage,
        succeeded=complete is not None,
        deleted=deleted and complete is None,
        completion_time=str(outcome["lastTransitionTime"]),
        message=message,
        has_pod=pod is not None,
        exit_code=state.get("exitCode", int(quoted.group(1)) if quoted else None),
        result=_result(str(state.get("message", "")), stage),
        out_of_memory=state.get("reason") == "OOMKilled",
        disrupted=disrupted or _DISRUPTED.match(message) is not None,
        eviction=str(pod["status"].get("message", "")) if pod and evicted and not disrupted else None,
        node=(pod.get("spec") or {}).get("nodeName") if pod else None,
    )


def called(stage: StageStatus) -> str:
    """Return what messages call the present attempt."""
    return f"Reading the result of {stage.name}" if stage.report_only else stage.name


def _result(message: str, stage: Stage) -> StageResult | None:
    try:
        result = StageResult.of_termination_message(message)
    except ValidationError:
        return None
    return result if result.stage == stage else None


def unusable_nodes(
    jobs: Sequence[Object], pods: Sequence[Object], stage: Stage, first_attempt: int = 0
) -> tuple[str, ...]:
    """Return the nodes whose GPU was found unusable by an attempt of this stage, from that one on.

    They are read from the pods, and from what earlier Jobs already avoided, in case a pod is gone.
    """
    found: set[str] = set()
    for pod in pods:
        state = children.terminated(pod) or {}
        node = (pod.get("spec") or {}).get("nodeName")
        if _is_of(pod, stage, first_attempt) and state.get("exitCode") == ExitCode.GPU_UNUSABLE and node:
            found.add(node)
    for job in jobs:
        if _is_of(job, stage, first_attempt):
            found.update(_avoided(job["spec"]["template"]["spec"]))
    return tuple(sorted(found))


def _is_of(child: Object, stage: Stage, first_attempt: int) -> bool:
    attempt = (child["metadata"].get("labels") or {}).get(names.ATTEMPT_LABEL, "0")
    return children.is_pod_of(child, stage) and int(attempt) >= first_attempt


def _avoided(pod_spec: Object) -> list[str]:
    node_affinity = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    fields = [f for term in required.get("nodeSelectorTerms") or [] for f in term.get("matchFields") or []]
    return [node for f in fields if f["key"] == "metadata.name" and f["operator"] == "NotIn" for node in f["values"]]
