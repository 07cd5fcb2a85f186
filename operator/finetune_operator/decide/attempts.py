"""What became of one attempt of a stage, read from its Job and pods."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from finetune_api.exit_codes import ExitCode
from finetune_api.result import StageResult
from finetune_api.spec import Stage
from finetune_api.status import StageStatus
from finetune_operator import names
from finetune_operator.decide import job_and_pod
from finetune_operator.decide.observation import Object

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
    # The last that any of its pods saved, as far as they say.
    checkpoint_step: int | None
    out_of_memory: bool
    disrupted: bool
    # The kubelet's words if it evicted the pod for using too much.
    eviction: str | None
    node: str | None


def ended(job: Object, pods: Sequence[Object], stage: Stage, attempt: int) -> Ended | None:
    """Return how an attempt ended, or None while its Job is live.

    A Job that is being deleted may never say how it ended, so that its pods decide.

    Of several pods that train together the first, which leads, alone has the result: it succeeded if that one did,
    whatever becomes of the others on their way out. Otherwise the attempt ended as the pod at fault did.
    """
    own = job_and_pod.newest([p for p in pods if job_and_pod.is_pod_of(p, stage, attempt)])
    leader = own.get(0)
    led = leader is not None and job_and_pod.completions(job) > 1 and _exit_code(leader) == 0
    complete, failed = job_and_pod.condition(job, "Complete"), job_and_pod.condition(job, "Failed")
    pod = leader if led or complete else _at_fault(list(own.values()))
    state = (job_and_pod.terminated(pod) if pod else None) or {}
    deleted = job_and_pod.is_being_deleted(job)
    outcome = complete or failed
    if outcome is None and deleted and own and not any(map(job_and_pod.is_live_pod, own.values())):
        finished = [(job_and_pod.terminated(p) or {}).get("finishedAt") for p in own.values()]
        if state.get("finishedAt"):
            outcome = {"lastTransitionTime": max(filter(None, finished))}
            complete = outcome if state.get("exitCode") == 0 else None
    if outcome is None:
        return None
    message = str(outcome.get("message", ""))
    quoted = _EXIT_CODE.match(message)
    disrupted = pod is not None and job_and_pod.condition(pod, "DisruptionTarget") is not None
    succeeded = led or complete is not None
    results = [
        r for p in own.values() if (r := _result(str((job_and_pod.terminated(p) or {}).get("message", "")), stage))
    ]
    return Ended(
        stage=stage,
        succeeded=succeeded,
        deleted=deleted and not succeeded,
        completion_time=str(outcome["lastTransitionTime"]),
        message=message,
        has_pod=pod is not None,
        exit_code=state.get("exitCode", int(quoted.group(1)) if quoted else None),
        result=_result(str(state.get("message", "")), stage),
        checkpoint_step=max((r.checkpoint_step for r in results if r.checkpoint_step is not None), default=None),
        out_of_memory=state.get("reason") == "OOMKilled",
        disrupted=disrupted or _DISRUPTED.match(message) is not None,
        eviction=str(pod["status"].get("message", "")) if pod and _is_evicted(pod) and not disrupted else None,
        node=(pod.get("spec") or {}).get("nodeName") if pod else None,
    )


def _at_fault(pods: Sequence[Object]) -> Object | None:
    """Return the pod for which the others stopped: those say that they were preempted. Of several, the first to end."""
    failed = [p for p in pods if (p.get("status") or {}).get("phase") != "Succeeded"]
    return min(failed or pods, key=_fault, default=None)


def _fault(pod: Object) -> tuple[bool, str, int]:
    told_to_end = _exit_code(pod) == ExitCode.PREEMPTED
    cause = job_and_pod.condition(pod, "DisruptionTarget") is not None or _is_evicted(pod)
    return (
        told_to_end and not cause,
        str((job_and_pod.terminated(pod) or {}).get("finishedAt", "")),
        job_and_pod.index(pod),
    )


def _exit_code(pod: Object) -> int | None:
    code: int | None = (job_and_pod.terminated(pod) or {}).get("exitCode")
    return code


def _is_evicted(pod: Object) -> bool:
    return (pod.get("status") or {}).get("reason") == "Evicted"


def called(stage: StageStatus) -> str:
    """Return what messages call the present attempt."""
    return f"Reading the result of {stage.name}" if stage.report_only else stage.name


def _result(message: str, stage: Stage) -> StageResult | None:
    try:
        result = StageResult.of_termination_message(message)
    except ValidationError:
        return None
    return result if result.stage == stage else None


def unusable_nodes(jobs: Sequence[Object], pods: Sequence[Object], stage: StageStatus) -> tuple[str, ...]:
    """Return the nodes whose GPU was found unusable by an attempt of this stage, since it was last reopened.

    Beside those of the status, which are of failed attempts whose pod was seen, they are read from the pods and from
    what earlier Jobs avoided.
    """
    found: set[str] = set(stage.unusable_nodes or ())
    for pod in pods:
        state = job_and_pod.terminated(pod) or {}
        node = (pod.get("spec") or {}).get("nodeName")
        if _is_of(pod, stage) and state.get("exitCode") == ExitCode.GPU_UNUSABLE and node:
            found.add(node)
    for job in jobs:
        if _is_of(job, stage):
            found.update(_avoided(job["spec"]["template"]["spec"]))
    return tuple(sorted(found))


def _is_of(child: Object, stage: StageStatus) -> bool:
    attempt = (child["metadata"].get("labels") or {}).get(names.ATTEMPT_LABEL, "0")
    return job_and_pod.is_pod_of(child, stage.name) and int(attempt) >= stage.first_attempt


def _avoided(pod_spec: Object) -> list[str]:
    node_affinity = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    fields = [f for term in required.get("nodeSelectorTerms") or [] for f in term.get("matchFields") or []]
    return [node for f in fields if f["key"] == "metadata.name" and f["operator"] == "NotIn" for node in f["values"]]
