"""The progress that pods reported: which report is newer, how it is shown, when it is written. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from finetune_api.progress import Progress, ProgressStatus
from finetune_api.spec import STAGES
from finetune_api.status import FineTuneJobStatus
from finetune_operator.clock import format_time

# In the first minutes of a stage its user watches it.
CLOSE_WATCH_SECONDS = 120.0
CLOSE_INTERVAL_SECONDS = 5.0
INTERVAL_SECONDS = 30.0


def attempt_order(progress: ProgressStatus) -> tuple[int, int, str]:
    """Return the stage, its attempt and when the pod was created, which never decrease in the life of a FineTuneJob.

    A queue that preempts a Job and admits it again replaces the pod within the attempt.
    """
    return STAGES.index(progress.stage), progress.attempt, progress.pod_creation_time or ""


def goes_back(new: Progress, old: ProgressStatus | None) -> bool:
    """Whether `new` is older than `old`: a report that was overtaken, or of a pod that was replaced."""
    if old is None or attempt_order(new) > attempt_order(old):
        return False
    if attempt_order(new) < attempt_order(old):
        return True
    # Not every report has a step, and earlier versions of the trainer send no sequence.
    return _less(new.sequence, old.sequence) or _less(new.step, old.step)


def _less(new: int | None, old: int | None) -> bool:
    return new is not None and old is not None and new < old


def duration(seconds: int) -> str:
    """Return seconds in the form that tables show: 42s, 4m10s, 1h02m, 3d04h."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def shown(progress: Progress, last: ProgressStatus | None, now: datetime) -> Progress:
    """Return the report with the members that the operator fills in; `now` is in UTC.

    An activity without steps, such as loading the model after a resume, keeps those of `last`, the report before it.
    Only their text: `step` is compared with later reports, and a resumed attempt may begin at an earlier one. The ETA
    is a least value, because only train reports one, and export, whose time nobody can know before, follows it.
    """
    steps = last.steps if last and last.stage == progress.stage else None
    if progress.step is not None and progress.total_steps is not None:
        steps = f"{progress.step}/{progress.total_steps}"
    return progress.model_copy(
        update={
            "update_time": format_time(now),
            "steps": steps,
            "completed": _completed(steps, progress.percent),
            "eta": f">{duration(progress.eta_seconds)}" if progress.eta_seconds is not None else None,
        }
    )


def _completed(steps: str | None, percent: int | None) -> str | None:
    return " ".join(part for part in (steps, None if percent is None else f"{percent}%") if part) or None


def at_rest(progress: ProgressStatus, status: FineTuneJobStatus) -> ProgressStatus:
    """Return the last report; unless its attempt runs, what the stage has reached, without what it was just doing."""
    stage = next((s for s in status.stages if s.name == progress.stage), None)
    # Pending: the pod is gone or not created yet, as in a queue.
    if stage and (stage.state, stage.attempt) == ("Running", progress.attempt) and status.phase != "Pending":
        return progress
    if progress.activity is None:
        return progress
    steps, completed = progress.steps, None
    if steps and stage and stage.state != "Succeeded":
        done, _, total = steps.partition("/")
        # What was trained after the last checkpoint is lost.
        done = done if stage.checkpoint_step is None else str(stage.checkpoint_step)
        steps = f"{done}/{total}"
        completed = _completed(steps, 100 * int(done) // max(1, int(total)))
    gone = dict.fromkeys(("activity", "percent", "eta", "eta_seconds"))
    return progress.model_copy(update={**gone, "steps": steps, "completed": completed})


@dataclass(frozen=True)
class Entry:
    """The latest report of one FineTuneJob, and the one last written. Times are seconds of a monotonic clock."""

    uid: str
    latest: Progress
    attempt_since: float
    written: Progress | None = None
    written_at: float = 0.0

    def due_in(self, now: float) -> float:
        """Return the seconds until the latest report is to be written; 0 for now."""
        new, old = self.latest, self.written
        if old is None or attempt_order(new) != attempt_order(old) or new.activity != old.activity:
            return 0.0
        first = old.step in (None, 0) and new.step not in (None, 0)
        last = new.step is not None and new.step == new.total_steps and old.step != new.step
        if first or last:
            return 0.0
        close = now - self.attempt_since < CLOSE_WATCH_SECONDS
        return max(self.written_at + (CLOSE_INTERVAL_SECONDS if close else INTERVAL_SECONDS) - now, 0.0)

    @property
    def is_written(self) -> bool:
        """Whether the latest report is written."""
        return self.written == self.latest


class ProgressStore:
    """The entries of all jobs that push to this replica."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Entry] = {}

    @property
    def entries(self) -> Mapping[tuple[str, str], Entry]:
        """By namespace and name."""
        return self._entries

    def take(self, key: tuple[str, str], uid: str, progress: Progress, now: float) -> Entry | None:
        """Store a report and return the job's entry; None if it is older than the latest one."""
        old = self._entries.get(key)
        if old is None or old.uid != uid:
            entry = Entry(uid, progress, now)
        elif goes_back(progress, old.latest):
            return None
        else:
            new_attempt = attempt_order(progress) != attempt_order(old.latest)
            since = now if new_attempt else old.attempt_since
            entry = Entry(uid, progress, since, old.written, old.written_at)
        self._entries[key] = entry
        return entry

    def wrote(self, key: tuple[str, str], entry: Entry, now: float) -> Entry | None:
        """Record that `entry.latest` is written; return the present entry, None if the job was forgotten."""
        present = self._entries.get(key)
        if present is None or present.uid != entry.uid:
            return None
        updated = Entry(present.uid, present.latest, present.attempt_since, entry.latest, now)
        self._entries[key] = updated
        return updated

    def forget(self, key: tuple[str, str]) -> None:
        """Drop the entry of a job."""
        self._entries.pop(key, None)
