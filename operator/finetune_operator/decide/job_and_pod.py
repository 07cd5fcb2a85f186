"""Questions about Jobs and pods, as the API server sent them."""

from collections.abc import Sequence

from finetune_api.spec import Stage
from finetune_operator import names
from finetune_operator.decide.observation import Object


def condition(child: Object, kind: str) -> Object | None:
    """Return the condition of that type if it is True."""
    conditions = (child.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), None)


def is_live_job(job: Object) -> bool:
    """Whether a Job may still have or start pods. FailureTarget and SuccessCriteriaMet come before the pods ended."""
    return condition(job, "Complete") is None and condition(job, "Failed") is None


def is_being_deleted(child: Object) -> bool:
    """Whether its deletion has begun. A Job gets no more pods then."""
    return bool(child["metadata"].get("deletionTimestamp"))


def is_live_pod(pod: Object) -> bool:
    """Whether a pod's container may run, now or later: one that is being deleted may still hold a GPU."""
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def live(jobs: Sequence[Object], pods: Sequence[Object]) -> list[str]:
    """Return the names of live Jobs and of live pods."""
    return sorted(
        [j["metadata"]["name"] for j in jobs if is_live_job(j)]
        + [p["metadata"]["name"] for p in pods if is_live_pod(p)]
    )


def named(children: Sequence[Object], name: str) -> Object | None:
    """Return the child of that name."""
    return next((c for c in children if c["metadata"]["name"] == name), None)


def is_pod_of(pod: Object, stage: Stage, attempt: int | None = None) -> bool:
    """Whether a pod belongs to a stage, and to one attempt of it if given."""
    labels = pod["metadata"].get("labels") or {}
    return labels.get(names.STAGE_LABEL) == stage and (
        attempt is None or labels.get(names.ATTEMPT_LABEL) == str(attempt)
    )


def stage_and_attempt(child: Object) -> tuple[str | None, str | None]:
    """Return which attempt of which stage a Job or pod belongs to, as its labels say."""
    labels = child["metadata"].get("labels") or {}
    return labels.get(names.STAGE_LABEL), labels.get(names.ATTEMPT_LABEL)


def is_pod_of_job(pod: Object, job: Object) -> bool:
    """Whether a pod belongs to a Job of the same FineTuneJob."""
    return stage_and_attempt(pod) == stage_and_attempt(job)


def index(pod: Object) -> int:
    """Return which pod of an Indexed Job it is; 0 for the one pod of another."""
    return int((pod["metadata"].get("labels") or {}).get(names.INDEX_LABEL) or 0)


def newest(pods: Sequence[Object]) -> dict[int, Object]:
    """Return the newest pod for each index; when a queue holds a Job, it ends the earlier ones."""
    order = sorted(pods, key=lambda p: str(p["metadata"].get("creationTimestamp", "")))
    return {index(p): p for p in order}


def completions(job: Object) -> int:
    """Return the number of pods that a Job runs at the same time."""
    number: int = (job.get("spec") or {}).get("completions") or 1
    return number


def runs(pod: Object) -> bool:
    """Whether a pod is Running."""
    return bool((pod.get("status") or {}).get("phase") == "Running")


def unstarted(job: Object, pods: Sequence[Object]) -> int:
    """Return how many pods of a Job have not started or do not exist; `pods` are the Job's."""
    started = [p for p in newest(pods).values() if (p.get("status") or {}).get("phase", "Pending") != "Pending"]
    return max(0, completions(job) - len(started))


def trainer_status(pod: Object) -> Object:
    """Return the status of the trainer's container; empty before the kubelet wrote one."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    found: Object = next((s for s in statuses if s["name"] == names.CONTAINER), {})
    return found


def terminated(pod: Object) -> Object | None:
    """Return how the trainer's container ended, or None if it has not."""
    state: Object | None = (trainer_status(pod).get("state") or {}).get("terminated")
    return state
