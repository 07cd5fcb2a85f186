"""GPU time: how long the containers of train ran, times the GPUs that each held.

A pod may be gone before its time is counted, as one that is preempted is. So `status.gpuSince` keeps the start of the
first container of the present attempt, and `status.gpuCount` the GPUs of all. When a deadline ends the job, the time
until then is counted, and the grace period is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from finetune_api.status import FineTuneJobStatus, StageStatus
from finetune_operator.clock import format_time, parse_time
from finetune_operator.decide import job_and_pod
from finetune_operator.decide.observation import Object
from finetune_operator.job_templates import train


@dataclass(frozen=True)
class _Span:
    """The time of one container that held GPUs, as Kubernetes writes it."""

    start: str
    # None: it runs.
    end: str | None
    gpus: int


def follow(
    status: FineTuneJobStatus, stage: StageStatus, job: Object, pods: Sequence[Object], now: datetime
) -> FineTuneJobStatus:
    """Keep the start of what runs; count what is gone while its Job is live, because a queue took its GPUs."""
    if status.gpu_since is not None and not any(span.start >= status.gpu_since for span in _spans(stage, pods)):
        held = job_and_pod.condition(job, "Suspended")
        status = count(status, stage, pods, held["lastTransitionTime"] if held else format_time(now))
    # A pod that is being deleted may have been counted.
    left = [p for p in pods if not job_and_pod.is_being_deleted(p)]
    running = [span for span in _spans(stage, left) if span.end is None]
    if not running:
        return status
    since = min(span.start for span in running)
    if status.gpu_since is not None:
        since = min(since, status.gpu_since)
    # Pods start one after another, and may be gone one after another.
    own = [p for p in pods if job_and_pod.is_pod_of(p, stage.name, stage.attempt)]
    known = _spans(stage, list(job_and_pod.newest(own).values()))
    gpus = max(sum(span.gpus for span in known if span.start >= since), status.gpu_count or 1)
    return status.model_copy(update={"gpu_since": since, "gpu_count": gpus if gpus > 1 else None})


def count(status: FineTuneJobStatus, stage: StageStatus, pods: Sequence[Object], when: str) -> FineTuneJobStatus:
    """Add the time of the present attempt, which is over: what still runs counts up to `when`."""
    since = status.gpu_since or ""
    spans = [span for span in _spans(stage, pods) if span.start >= since]
    # Pods that are gone are taken to have started with the first.
    gone = (status.gpu_count or 1) - sum(span.gpus for span in spans) if since else 0
    if gone > 0:
        spans.append(_Span(since, None, gone))
    if not spans:
        return status
    seconds = sum(span.gpus * _seconds(span.start, span.end or when) for span in spans)
    update = {"gpu_seconds": (status.gpu_seconds or 0) + seconds, "gpu_since": None, "gpu_count": None}
    return status.model_copy(update=update)


def _seconds(start: str, end: str) -> int:
    return max(0, int((parse_time(end) - parse_time(start)).total_seconds()))


def _spans(stage: StageStatus, pods: Sequence[Object]) -> list[_Span]:
    if stage.name != "train" or stage.report_only:
        return []
    found = []
    for pod in pods:
        if job_and_pod.is_pod_of(pod, stage.name, stage.attempt):
            state = job_and_pod.trainer_status(pod).get("state") or {}
            ran = state.get("terminated") or state.get("running") or {}
            if ran.get("startedAt"):
                found.append(_Span(ran["startedAt"], ran.get("finishedAt"), _gpus(pod)))
    return found


def _gpus(pod: Object) -> int:
    """Return the number of GPUs of a pod by its arguments: `spec.compute` may have been edited since."""
    arguments = pod["spec"]["containers"][0].get("args") or []
    return int(arguments[arguments.index(train.PROCESSES) + 1]) if train.PROCESSES in arguments else 1
