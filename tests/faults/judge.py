"""What counts as lost, doubled and wrong: pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tests.faults.trainer import Stored, lacking

Object = dict[str, Any]
Wrong = Literal["lost", "doubled", "wrong"]
_ORDER = {"Pending": 0, "Running": 1, "Succeeded": 2, "Failed": 2, "Skipped": 2}
# It follows the spec's generation, also when a job is over; and progress is taken away.
_PASSING = ("observedGeneration", "progress")


@dataclass(frozen=True)
class Problem:
    """One finding about one FineTuneJob, by its uid."""

    kind: Wrong
    uid: str
    sentence: str


def is_finished(job: Object) -> bool:
    """Whether it says so itself."""
    return _condition(job, "Finished") == "True"


def has_failed(job: Object) -> bool:
    """Whether it says so itself."""
    return _condition(job, "Failed") == "True"


def is_settled(job: Object) -> bool:
    """Whether it is finished, and nobody has asked it to continue."""
    return is_finished(job) and not (has_failed(job) and _opened(job, "spec") > _opened(job, "status"))


def changed_wrongly(old: Object, new: Object) -> list[str]:
    """Return what is wrong with a step from one status of a FineTuneJob to a later one."""
    if _opened(old, "status") < _opened(new, "status") and (has_failed(old) or not is_finished(old)):
        return []
    if is_finished(old):
        before, after = _lasting(old), _lasting(new)
        return [
            f"finished, and then {member} changed from {before.get(member)} to {after.get(member)}"
            for member in sorted(before.keys() | after.keys())
            if before.get(member) != after.get(member)
        ]
    found = []
    before, after = old.get("status") or {}, new.get("status") or {}
    stages = {stage["name"]: stage for stage in after.get("stages", [])}
    for stage in before.get("stages", []):
        later = stages.get(stage["name"])
        if later is None:
            found.append(f"stage {stage['name']} vanished")
            continue
        found += [f"stage {stage['name']} went back: {text}" for text in _went_back(stage, later)]
    for member in ("snapshot", "startTime", "runId"):
        if before.get(member) is not None and before[member] != after.get(member):
            found.append(f"{member} changed from {before[member]} to {after.get(member)}")
    if (after.get("gpuSeconds") or 0) < (before.get("gpuSeconds") or 0):
        found.append("gpuSeconds went back")
    return found


def _went_back(old: Object, new: Object) -> list[str]:
    found = []
    if (new["attempt"], _ORDER[new["state"]]) < (old["attempt"], _ORDER[old["state"]]):
        found.append(f"from attempt {old['attempt']} {old['state']} to attempt {new['attempt']} {new['state']}")
    if _ORDER[old["state"]] == 2 and new["state"] != old["state"]:
        found.append(f"from {old['state']} to {new['state']}")
    lower = [m for m in ("countedFailures", "checkpointStep") if (new.get(m) or 0) < (old.get(m) or 0)]
    return [*found, *(f"{member} from {old.get(member)} to {new.get(member)}" for member in lower)]


def started_wrongly(job: Object | None, pod: Object) -> list[str]:
    """Return what is wrong with a pod that has just been created, given its FineTuneJob as it was last seen."""
    if job is None or not is_finished(job):
        return []
    metadata = pod["metadata"]
    # Both are times of the cluster in whole seconds; the pod may have been seen after the end of its job.
    if metadata["creationTimestamp"] <= job["status"]["completionTime"]:
        return []
    return [f"finished at {job['status']['completionTime']}, and then {metadata['name']} started"]


def doubled(place: tuple[str, str], live: Sequence[tuple[str, str]]) -> str | None:
    """Return what is wrong with a train pod beside those that are live: each has the name of its Job and its index."""
    job, _ = place
    others = sorted({name for name, _ in live} - {job})
    if others:
        return f"{job} runs while {', '.join(others)} does"
    return f"two pods {place} are live" if place in live else None


def at_the_end(uid: str, job: Object | None, stored: Stored) -> list[Problem]:
    """Return what is wrong with a FineTuneJob that nobody deleted, after all faults have ended."""
    found = []
    done = stored.completed.get("train", 0)
    if done > 1:
        found.append(Problem("doubled", uid, f"trained to the end {done} times"))
    if job is None:
        return [*found, Problem("lost", uid, "it is not there any more")]
    if not is_settled(job):
        return [*found, Problem("lost", uid, f"never finished: {_reason(job)}")]
    expected = stored.scenario.fails_with
    succeeded = _condition(job, "Succeeded") == "True"
    if succeeded != (expected is None) or (_condition(job, "Failed") == "True") == succeeded:
        wanted = f"Failed, {expected}" if expected else "Succeeded"
        found.append(Problem("wrong", uid, f"should be {wanted}, and is {_reason(job)}"))
    elif succeeded and (missing := lacking(stored, job["status"].get("artifacts") or [])):
        found.append(Problem("lost", uid, f"succeeded without {', '.join(missing)}"))
    if not succeeded:
        found += [Problem("wrong", uid, text) for text in _badly_reported(job, stored)]
    return found


def _badly_reported(job: Object, stored: Stored) -> list[str]:
    failure = job["status"].get("failure") or {}
    if len(str(failure.get("message", "")).split()) < 4:
        return [f"failed without a sentence: {failure}"]
    expected = stored.scenario.fails_with
    # Without retries whatever comes first ends it.
    if expected and stored.scenario.retries and failure.get("reason") != expected:
        return [f"failed as {failure.get('reason')}, should be {expected}: {failure['message']}"]
    return []


def _condition(job: Object, kind: str) -> str | None:
    conditions = (job.get("status") or {}).get("conditions") or []
    return next((c["status"] for c in conditions if c["type"] == kind), None)


def _opened(job: Object, part: str) -> int:
    return (job.get(part) or {}).get("retryGeneration") or 0


def _reason(job: Object) -> str:
    conditions = (job.get("status") or {}).get("conditions") or []
    found = next((f"{c['reason']}: {c['message']}" for c in conditions if c["type"] == "Ready"), "without conditions")
    return " ".join(found.split())


def _lasting(job: Object) -> Object:
    """Return the status without what may change after the end."""
    status = {k: v for k, v in job["status"].items() if k not in _PASSING}
    conditions = [{k: v for k, v in c.items() if k not in _PASSING} for c in status.get("conditions", [])]
    return {**status, "conditions": sorted(conditions, key=lambda c: str(c["type"]))}
