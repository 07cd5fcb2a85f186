"""Which watch events need a pass: most FineTuneJobs are finished, and there is nothing to do for them."""

import contextlib
from collections.abc import Callable, Iterator

from finetune_operator.decide import job_and_pod
from finetune_operator.decide.conditions import is_finished
from finetune_operator.decide.observation import Object

Key = tuple[str, str]
"""Namespace and name of a FineTuneJob."""

# Events of children come in bursts: a Job, its pod, the pod's node. One pass handles them all.
_BURST_SECONDS = 0.1
# The pass would only report that a pod runs. If the pod has ended by then, one pass reports both.
_RUNS_SECONDS = 3.0
# When a pod has ended, the Job controller updates the Job, which needs a pass; this one is for a Job that stays stuck.
_OUTCOME_SECONDS = 30.0
_PASS_SECONDS = {"Running": _RUNS_SECONDS, "Succeeded": _OUTCOME_SECONDS, "Failed": _OUTCOME_SECONDS}
# Conditions of a healthy pod, and of a Job before its outcome.
_ROUTINE = frozenset(
    {
        *("PodScheduled", "Initialized", "PodReadyToStartContainers", "ContainersReady", "Ready"),
        *("SuccessCriteriaMet", "FailureTarget"),
    }
)
_STARTING = frozenset({"ContainerCreating", "PodInitializing"})
# The members of a report that are removed when a job ends.
_PRESENT = frozenset({"activity", "eta", "etaSeconds"})


def _is_settled(job: Object) -> bool:
    """Whether it is finished, its present spec was observed, and its last report is final."""
    status = job.get("status") or {}
    seen = status.get("observedGeneration") == job["metadata"].get("generation")
    return is_finished(job) and seen and not _PRESENT & (status.get("progress") or {}).keys()


def waits_for_ttl(job: Object) -> bool:
    """Whether all that is left to do for a stored FineTuneJob is to delete it or its children after its TTL."""
    return _is_settled(job) and job["spec"].get("ttlSecondsAfterFinished") is not None


def resting_phase(job: Object) -> str | None:
    """Return the phase of a stored FineTuneJob for which a pass would do nothing; None for any other."""
    if not _is_settled(job) or waits_for_ttl(job):
        return None
    phase: str | None = job["status"].get("phase")
    return phase


def revision(job: Object) -> str | None:
    """Return what stays the same while only the status changes; None for a finished FineTuneJob.

    A change of the status needs no pass: the operator alone writes it, and a pass requests the next one itself.
    """
    metadata = job["metadata"]
    deleted = metadata.get("deletionTimestamp")
    return None if is_finished(job) else f"{metadata.get('uid')}/{metadata.get('generation')}/{deleted}"


def fingerprint(child: Object) -> str:
    """Return the parts of a Job or a pod that matter to a pass, as text; the same text means no relevant change.

    The text is empty for a healthy pod that does not run yet: the pass that created its Job has requested the next one.
    """
    status = child.get("status") or {}
    relevant = [c for c in status.get("conditions") or [] if c["type"] not in _ROUTINE or _is_unscheduled(c)]
    waits = [(c.get("state") or {}).get("waiting") or {} for c in status.get("containerStatuses") or []]
    parts = (
        "" if status.get("phase") == "Pending" else status.get("phase"),
        child["metadata"].get("deletionTimestamp"),
        (child.get("spec") or {}).get("suspend"),
        sorted((c["type"], c["status"], c.get("reason") or "", c.get("lastTransitionTime") or "") for c in relevant),
        [w["reason"] for w in waits if w.get("reason") and w["reason"] not in _STARTING],
    )
    return repr(parts) if any(parts) else ""


def _seconds(pod: Object) -> float:
    """Return how long the pass for a change of a pod may wait: not long if the pod is being deleted."""
    phase: str = (pod.get("status") or {}).get("phase", "Pending")
    return _BURST_SECONDS if pod["metadata"].get("deletionTimestamp") else _PASS_SECONDS.get(phase, _BURST_SECONDS)


def _is_unscheduled(condition: Object) -> bool:
    return bool(condition["type"] == "PodScheduled" and condition["status"] == "False")


class EventFilter:
    """Receives watch events and full lists, in the event loop of the work queue, and enqueues what needs a pass.

    It calls `add(key, seconds)` to make a pass due; `rests(key, phase)` instead for a FineTuneJob that needs none,
    whose children then need one only if they are live, which they should not be; and `reported(key, job)` for a
    FineTuneJob whose status alone has changed.

    `relisted` marks an object that was listed because a watch started again. Events may have been missed meanwhile, so
    it needs a pass even if it looks unchanged.
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
        self._fingerprints: dict[str, str] = {}
        # Names of Jobs.
        self._expected: dict[Key, set[str]] = {}
        # By uid. Kept on a standby too: no watch repeats what the previous leader left running.
        self._live: dict[Key, set[str]] = {}
        # FineTuneJobs that changed since a full list began, so that what the list has may be older.
        self._changed_since_list: set[Key] | None = None

    @contextlib.contextmanager
    def full_list(self) -> Iterator[Callable[[Key, Object], None]]:
        """Yield the function that takes each listed FineTuneJob: each needs a pass, unless it is at rest."""
        self._revisions.clear()
        self._fingerprints.clear()
        self._changed_since_list = set()
        try:
            yield self._listed
        finally:
            self._changed_since_list = None

    def _listed(self, key: Key, job: Object) -> None:
        if self._changed_since_list is not None and key in self._changed_since_list:
            self._add(key, 0.0)
        else:
            self._of_job(key, job)

    def of_job(self, key: Key, job: Object | None, *, relisted: bool = False) -> None:
        """Take a FineTuneJob that was listed or changed; None if it is gone."""
        if self._changed_since_list is not None:
            self._changed_since_list.add(key)
        if relisted:
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
        """Expect this Job, which a pass is about to create: its creation needs no other pass."""
        self._expected.setdefault(key, set()).add(job_name)

    def of_child(self, key: Key, child: Object, *, gone: bool, relisted: bool = False) -> None:
        """Take a Job or a pod of a FineTuneJob that was listed or changed, or is gone."""
        uid = child["metadata"]["uid"]
        is_pod = "template" not in (child.get("spec") or {})
        live = not gone and (job_and_pod.is_live_pod(child) if is_pod else job_and_pod.is_live_job(child))
        self._note(key, uid, live=live)
        known = self._fingerprints.pop(uid, "" if is_pod or self._was_expected(key, child) else None)
        if key in self._resting and not live:
            return
        present = fingerprint(child)
        if not gone:
            self._fingerprints[uid] = present
        if gone or relisted or present != known:
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
