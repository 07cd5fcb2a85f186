"""How one attempt of a stage ended, read from its Job and pods."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import ValidationError

from finetune_api.exit_codes import ExitCode
from finetune_api.result import StageResult
from finetune_api.spec import Stage
from finetune_api.status import StageStatus
from finetune_operator import names
from finetune_operator.decide import job_and_pod
from finetune_operator.decide.observation import Object

# The message of the Job's Failed condition, which outlives the pod: pkg/controller/job/pod_failure_policy.go.
_EXIT_CODE = re.compile(r"^Container trainer for pod \S+ failed with exit code (\d+) matching ")
_DISRUPTED = re.compile(r"^Pod \S+ has condition DisruptionTarget matching ")


@dataclass(frozen=True)
class Ended:
    """An attempt that is over: none of its pods runs, and no other will."""

    stage: Stage
    succeeded: bool
    # Its Job was deleted before it succeeded: whatever the pod reported while it terminated is no failure of the stage.
    deleted: bool
    # As Kubernetes writes it.
    completion_time: str
    # The Job's own words.
    message: str
    # Whether a pod of the attempt is still there to be read.
    has_pod: bool
    exit_code: int | None
    # None if there is no pod, or if its termination message is not one of the trainer's.
    result: StageResult | None
    # The last checkpoint of any of its pods, as far as they report it.
    checkpoint_step: int | None
    out_of_memory: bool
    disrupted: bool
    # The kubelet's words if it evicted the pod for using too much.
    eviction: str | None
    node: str | None


@dataclass(frozen=True)
class _Attempt:
    """The Job and pods of one attempt."""

    job: Object
    # The newest pod for each index.
    pods: dict[int, Object]

    @property
    def leader(self) -> Object | None:
        """The first of several pods that train together, or the only one. It alone has the result."""
        return self.pods.get(0)

    @property
    def leader_succeeded(self) -> bool:
        """Whether the first of several pods succeeded: the attempt did then, whatever becomes of the others."""
        return self.leader is not None and job_and_pod.completions(self.job) > 1 and _exit_code(self.leader) == 0

    @cached_property
    def pod(self) -> Object | None:
        """The pod whose end is that of the attempt: the leader after a success, else the pod at fault."""
        if self.leader_succeeded or job_and_pod.condition(self.job, "Complete"):
            return self.leader
        return _at_fault(list(self.pods.values()))

    @property
    def terminated(self) -> Object:
        """How the trainer's container of that pod ended; empty if it is not known."""
        return (job_and_pod.terminated(self.pod) if self.pod else None) or {}


@dataclass(frozen=True)
class _Outcome:
    """What became of a Job: see `Ended` for the members."""

    succeeded: bool
    completion_time: str
    message: str = ""


def _complete(attempt: _Attempt) -> _Outcome | None:
    """The Job controller marked the Job Complete."""
    return _of_condition(attempt, "Complete", succeeded=True)


def _failed(attempt: _Attempt) -> _Outcome | None:
    """The Job controller marked the Job Failed."""
    return _of_condition(attempt, "Failed", succeeded=attempt.leader_succeeded)


def _deleted(attempt: _Attempt) -> _Outcome | None:
    """The Job is being deleted, so its conditions may never be written: its pods decide, once none of them runs."""
    pods = list(attempt.pods.values())
    if not job_and_pod.is_being_deleted(attempt.job) or any(map(job_and_pod.is_live_pod, pods)):
        return None
    if not attempt.terminated.get("finishedAt"):
        return None
    finished = [(job_and_pod.terminated(pod) or {}).get("finishedAt") for pod in pods]
    succeeded = attempt.leader_succeeded or attempt.terminated.get("exitCode") == 0
    return _Outcome(succeeded, max(filter(None, finished)))


_OUTCOMES: tuple[Callable[[_Attempt], _Outcome | None], ...] = (_complete, _failed, _deleted)


def ended(job: Object, pods: Sequence[Object], stage: Stage, attempt: int) -> Ended | None:
    """Return how an attempt ended, or None while its Job is live.

    If several pods train together, the attempt succeeded if the first one did, whatever becomes of the others.
    Otherwise it ended as the pod at fault did.
    """
    own = job_and_pod.newest([p for p in pods if job_and_pod.is_pod_of(p, stage, attempt)])
    found = _Attempt(job, own)
    outcome = next((outcome for check in _OUTCOMES if (outcome := check(found))), None)
    if outcome is None:
        return None
    pod, state = found.pod, found.terminated
    results = [_result(str((job_and_pod.terminated(p) or {}).get("message", "")), stage) for p in own.values()]
    steps = [r.checkpoint_step for r in results if r and r.checkpoint_step is not None]
    return Ended(
        stage=stage,
        succeeded=outcome.succeeded,
        deleted=job_and_pod.is_being_deleted(job) and not outcome.succeeded,
        completion_time=outcome.completion_time,
        message=outcome.message,
        has_pod=pod is not None,
        exit_code=state.get("exitCode", _quoted_exit_code(outcome.message)),
        result=_result(str(state.get("message", "")), stage),
        checkpoint_step=max(steps, default=None),
        out_of_memory=state.get("reason") == "OOMKilled",
        disrupted=_is_disrupted(pod) or _DISRUPTED.match(outcome.message) is not None,
        eviction=_eviction(pod),
        node=(pod.get("spec") or {}).get("nodeName") if pod else None,
    )


def _of_condition(attempt: _Attempt, kind: str, *, succeeded: bool) -> _Outcome | None:
    found = job_and_pod.condition(attempt.job, kind)
    if found is None:
        return None
    return _Outcome(succeeded, str(found["lastTransitionTime"]), str(found.get("message", "")))


def _quoted_exit_code(message: str) -> int | None:
    quoted = _EXIT_CODE.match(message)
    return int(quoted.group(1)) if quoted else None


def _at_fault(pods: Sequence[Object]) -> Object | None:
    """Return the pod that made the others stop, which report that they were preempted; the first of several to end."""
    failed = [p for p in pods if (p.get("status") or {}).get("phase") != "Succeeded"]
    return min(failed or pods, key=_fault, default=None)


def _fault(pod: Object) -> tuple[bool, str, int]:
    stopped_by_others = _exit_code(pod) == ExitCode.PREEMPTED and not _is_disrupted(pod) and not _is_evicted(pod)
    finished = str((job_and_pod.terminated(pod) or {}).get("finishedAt", ""))
    return stopped_by_others, finished, job_and_pod.index(pod)


def _exit_code(pod: Object) -> int | None:
    code: int | None = (job_and_pod.terminated(pod) or {}).get("exitCode")
    return code


def _is_disrupted(pod: Object | None) -> bool:
    return pod is not None and job_and_pod.condition(pod, "DisruptionTarget") is not None


def _is_evicted(pod: Object) -> bool:
    return (pod.get("status") or {}).get("reason") == "Evicted"


def _eviction(pod: Object | None) -> str | None:
    """Return the kubelet's words if it evicted the pod for what the pod used."""
    if pod is None or not _is_evicted(pod) or _is_disrupted(pod):
        return None
    return str(pod["status"].get("message", ""))


def called(stage: StageStatus) -> str:
    """Return what messages call the present attempt."""
    return f"Reading the result of {stage.name}" if stage.report_only else stage.name


def about_to_start(stage: StageStatus) -> str:
    """Return the message while the present attempt is due."""
    return f"{called(stage)} is about to start, attempt {stage.attempt + 1}."


def is_running(stage: StageStatus) -> str:
    """Return the message while the present attempt runs."""
    return f"{called(stage)} is running, attempt {stage.attempt + 1}."


def _result(message: str, stage: Stage) -> StageResult | None:
    try:
        result = StageResult.of_termination_message(message)
    except ValidationError:
        return None
    return result if result.stage == stage else None


def unusable_nodes(jobs: Sequence[Object], pods: Sequence[Object], stage: StageStatus) -> tuple[str, ...]:
    """Return the nodes whose GPU an attempt of this stage found unusable, since the job was last reopened.

    The status has those of failed attempts whose pod was seen. The others are read from the pods, and from what earlier
    Jobs avoided.
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
