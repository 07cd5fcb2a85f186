"""GPU time: how long the containers of train ran.

`status.gpuSince` keeps the start of the present one, since its pod may be gone before anybody counts: a pod that is
preempted goes as soon as its Job has noticed. What runs when a deadline ends the job is counted up to then; its grace
is not.
"""

from collections.abc import Sequence
from datetime import datetime

from finetune_api.status import FineTuneJobStatus, StageStatus
from finetune_operator import children
from finetune_operator.clock import format_time, parse_time
from finetune_operator.observation import Object


def follow(
    status: FineTuneJobStatus, stage: StageStatus, job: Object, pods: Sequence[Object], now: datetime
) -> FineTuneJobStatus:
    """Keep the start of what runs, and count what is gone though its Job goes on: a queue took its GPU."""
    if status.gpu_since is not None:
        if any(start >= status.gpu_since for start, _ in _spans(stage, pods)):
            return status
        held = children.condition(job, "Suspended")
        status = count(status, stage, pods, held["lastTransitionTime"] if held else format_time(now))
    # One that is being deleted may have been counted.
    left = [p for p in pods if not children.is_being_deleted(p)]
    starts = [start for start, end in _spans(stage, left) if end is None]
    return status.model_copy(update={"gpu_since": min(starts)}) if starts else status


def count(status: FineTuneJobStatus, stage: StageStatus, pods: Sequence[Object], when: str) -> FineTuneJobStatus:
    """Add the time of the present attempt, which is over: what still runs is counted up to `when`."""
    since = status.gpu_since or ""
    spans = [(start, end or when) for start, end in _spans(stage, pods) if start >= since]
    if not spans and since:
        spans = [(since, when)]
    if not spans:
        return status
    seconds = sum(max(0, int((parse_time(end) - parse_time(start)).total_seconds())) for start, end in spans)
    return status.model_copy(update={"gpu_seconds": (status.gpu_seconds or 0) + seconds, "gpu_since": None})


def _spans(stage: StageStatus, pods: Sequence[Object]) -> list[tuple[str, str | None]]:
    """Return start and end of the containers of an attempt that held a GPU, as Kubernetes writes them."""
    if stage.name != "train" or stage.report_only:
        return []
    states = [
        children.trainer_status(p).get("state") or {} for p in pods if children.is_pod_of(p, stage.name, stage.attempt)
    ]
    found = [state.get("terminated") or state.get("running") or {} for state in states]
    return [(s["startedAt"], s.get("finishedAt")) for s in found if s.get("startedAt")]
