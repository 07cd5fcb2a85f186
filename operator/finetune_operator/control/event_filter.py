"""Which news asks for a pass: most FineTuneJobs have ended long ago, and there is nothing to do for them."""

import contextlib
from collections.abc import Callable, Iterator

from finetune_operator.decide import job_and_pod
from finetune_operator.decide.conditions import is_finished
from finetune_operator.decide.observation import Object

Key = tuple[str, str]
"""Namespace and name of a FineTuneJob."""

# What happens to children comes in bursts: a Job, its pod, the pod's node. One pass takes it all in.
_BURST_SECONDS = 0.1
# A pass would only tell that a pod runs; of one that is over by then the next pass tells it all.
_RUNS_SECONDS = 3.0
# The Job controller says some time later how an attempt ended whose pod has; a pass is only for one that never does.
_OUTCOME_SECONDS = 30.0
_PASS_SECONDS = {"Running": _RUNS_SECONDS, "Succeeded": _OUTCOME_SECONDS, "Failed": _OUTCOME_SECONDS}
# What a healthy pod goes through, and what a Job says before its outcome.
_ROUTINE = frozenset(
    {
        *("PodScheduled", "Initialized", "PodReadyToStartContainers", "ContainersReady", "Ready"),
        *("SuccessCriteriaMet", "FailureTarget"),
    }
)
_STARTING = frozenset({"ContainerCreating", "PodInitializing"})
# What a report says of the present, which is taken back when a job ends.
_PRESENT = frozenset({"activity", "eta", "etaSeconds"})


def _is_settled(job: Object) -> bool:
    """Whether it has ended, its present spec was seen, and its last report says nothing of the present any more."""
    status = job.get("status") or {}
    seen = status.get("observedGeneration") == job["metadata"].get("generation")
    return is_finished(job) and seen and not _PRESENT & (status.get("progress") or {}).keys()


def is_to_expire(job: Object) -> bool:
    """Whether all that is left to do for a stored FineTuneJob is to delete it, or its children, when its time is up."""
    return _is_settled(job) and job["spec"].get("ttlSecondsAfterFinished") is not None


def resting_phase(job: Object) -> str | None:
    """Return the phase of a stored FineTuneJob for which a pass would do nothing; None for any other."""
    if not _is_settled(job) or is_to_expire(job):
        return None
    phase: str | None = job["status"].get("phase")
    return phase


def revision(job: Object) -> str | None:
    """Return what stays the same as long as only the status changes; None for a FineTuneJob that has ended.

    The operator alone writes the status, and a pass that wants another one asks for it.
    """
    metadata = job["metadata"]
    deleted = metadata.get("deletionTimestamp")
    return None if is_finished(job) else f"{metadata.get('uid')}/{metadata.get('generation')}/{deleted}"


def signs(child: Object) -> str:
    """Return what of a Job or a pod a pass may go by, as text; the same text means that nothing has happened.

    A healthy pod that does not run yet has none: the pass that started it has asked for another one meanwhile.
    """
    status = child.get("status") or {}
    told = [c for c in status.get("conditions") or [] if c["type"] not in _ROUTINE or _is_unscheduled(c)]
    waits = [(c.get("state") or {}).get("waiting") or {} for c in status.get("containerStatuses") or []]
    parts = (
        "" if status.get("phase") == "Pending" else status.get("phase"),
        child["metadata"].get("deletionTimestamp"),
        (child.get("spec") or {}).get("suspend"),
        sorted((c["type"], c["status"], c.get("reason") or "", c.get("lastTransitionTime") or "") for c in told),
        [w["reason"] for w in waits if w.get("reason") and w["reason"] not in _STARTING],
    )
    return repr(parts) if any(parts) else ""


def _seconds(pod: Object) -> float:
    """Return how long the pass may wait that a pod asks for. One that is being deleted soon says nothing any more."""
    phase: str = (pod.get("status") or {}).get("phase", "Pending")
    return _BURST_SECONDS if pod["metadata"].get("deletionTimestamp") else _PASS_SECONDS.get(phase, _BURST_SECONDS)


def _is_unscheduled(condition: Object) -> bool:
    return bool(condition["type"] == "PodScheduled" and condition["status"] == "False")


class News:
    """Takes news, from the watches and from full lists alike, in the event loop of the work queue.

    `add(key, seconds)` makes a pass due. `rests(key, phase)` is called instead for a FineTuneJob at rest, and what then
    happens to its children makes nothing due, unless one of them is live, which must not be; `reported(key, job)` for
    one of which only the status has changed.

    `anew`: the object was listed by a watch that begins again. What happened meanwhile to others may have been missed,
    so that it counts as news whatever is known of it.
    """

    def __init__(
        self,
        add: Callable[[Key, float], None],
        rests: Callable[[Key, str], None],
        reported: Callable[[Key, Object], None],
    ) -> None:
        self._add = add
        self._rests = rests
        self._reported = reported
        self._resting: set[Key] = set()
        self._revisions: dict[Key, str] = {}
        self._signs: dict[str, str] = {}
        # Names of Jobs.
        self._expected: dict[Key, set[str]] = {}
        # By uid. Kept on a standby too: no watch tells again of what its predecessor left running.
        self._live: dict[Key, set[str]] = {}
        # What the watches told of since a full list began, which may be older.
        self._heard: set[Key] | None = None

    @contextlib.contextmanager
    def full_list(self) -> Iterator[Callable[[Key, Object], None]]:
        """Yield what takes the FineTuneJobs that are listed; all counts as news again, but for what is at rest."""
        self._revisions.clear()
        self._signs.clear()
        self._heard = set()
        try:
            yield self._listed
        finally:
            self._heard = None

    def _listed(self, key: Key, job: Object) -> None:
        if self._heard is not None and key in self._heard:
            self._add(key, 0.0)
        else:
            self._of_job(key, job)

    def of_job(self, key: Key, job: Object | None, *, anew: bool = False) -> None:
        """A FineTuneJob was listed or changed, or is gone: None."""
        if self._heard is not None:
            self._heard.add(key)
        if anew:
            self._revisions.pop(key, None)
        self._of_job(key, job)

    def _of_job(self, key: Key, job: Object | None) -> None:
        phase = resting_phase(job) if job else None
        if job is None or phase is not None:
            self._expected.pop(key, None)
        if phase is not None:
            self._resting.add(key)
            self._revisions.pop(key, None)
            self._rests(key, phase)
            if key in self._live:
                self._add(key, 0.0)
            return
        self._resting.discard(key)
        known = self._revisions.pop(key, None)
        present = revision(job) if job else None
        if present is not None:
            self._revisions[key] = present
        if job is None or present is None or present != known:
            self._add(key, 0.0)
        else:
            self._reported(key, job)

    def expect(self, key: Key, job_name: str) -> None:
        """A pass is about to create this Job, and fails if it does not see it created: that it is there is no news."""
        self._expected.setdefault(key, set()).add(job_name)

    def of_child(self, key: Key, child: Object, *, gone: bool, anew: bool = False) -> None:
        """A Job or a pod of a FineTuneJob was listed or changed, or is gone."""
        uid = child["metadata"]["uid"]
        is_pod = "template" not in (child.get("spec") or {})
        live = not gone and (job_and_pod.is_live_pod(child) if is_pod else job_and_pod.is_live_job(child))
        self._note(key, uid, live=live)
        known = self._signs.pop(uid, "" if is_pod or self._was_expected(key, child) else None)
        if key in self._resting and not live:
            return
        present = signs(child)
        if not gone:
            self._signs[uid] = present
        if gone or anew or present != known:
            self._add(key, _seconds(child) if is_pod and not gone else _BURST_SECONDS)

    def _was_expected(self, key: Key, child: Object) -> bool:
        expected, name = self._expected.get(key, set()), child["metadata"]["name"]
        if name not in expected:
            return False
        expected.remove(name)
        return True

    def _note(self, key: Key, uid: str, *, live: bool) -> None:
        if live:
            self._live.setdefault(key, set()).add(uid)
        elif key in self._live:
            self._live[key].discard(uid)
            if not self._live[key]:
                del self._live[key]
