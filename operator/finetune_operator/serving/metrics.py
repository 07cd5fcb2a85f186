"""Prometheus metrics of one replica.

The metrics of FineTuneJobs, `finetune_jobs` and `finetune_job_*`, come only from the leader, which collects them in its
passes, so that a sum over all replicas is right. The counters of attempts, stages and GPU time count what a replica saw
while it led. All other metrics are those of the replica itself.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from finetune_api.progress import ProgressStatus
from finetune_api.status import FineTuneJobStatus, StageStatus
from finetune_operator.clock import parse_time

_STAGE_BUCKETS = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 28800, 86400)
_LIVE = {
    "step": "Optimizer steps done.",
    "total_steps": "Total optimizer steps.",
    "loss": "Training loss.",
    "tokens_per_second": "Training speed.",
}


class Metrics:
    """Everything that `/metrics` shows, in its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._phases: dict[tuple[str, str], str] = {}
        registry = self.registry
        self._jobs = Gauge("finetune_jobs", "FineTuneJobs by phase.", ["namespace", "phase"], registry=registry)
        self._stage_seconds = Histogram(
            "finetune_stage_duration_seconds",
            "Duration of the attempt that ended a stage, by its outcome.",
            ["stage", "state"],
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )
        self._attempts = Counter(
            "finetune_attempt_failures", "Failed attempts, by reason.", ["stage", "reason"], registry=registry
        )
        self._gpu_seconds = Counter(
            "finetune_gpu_seconds",
            "Seconds that containers of train ran, counted once they have ended.",
            ["namespace"],
            registry=registry,
        )
        self.reconcile_seconds = Histogram(
            "finetune_reconcile_seconds", "Length of a reconcile pass.", ["outcome"], registry=registry
        )
        self.last_full_list = Gauge(
            "finetune_last_full_list_timestamp_seconds", "When all FineTuneJobs were last listed.", registry=registry
        )
        self._rejects = Counter(
            "finetune_progress_rejects",
            "Progress pushes that were refused, by HTTP status.",
            ["code"],
            registry=registry,
        )
        self._live = {
            name: Gauge(
                f"finetune_job_{name}", f"{help_text} Gone when the job ends.", ["namespace", "name"], registry=registry
            )
            for name, help_text in _LIVE.items()
        }

    def watch(
        self, leads: Callable[[], bool], queue_depth: Callable[[], float], watch_age: Callable[[], float]
    ) -> None:
        """Show whether this replica leads, the depth of the queue and the age of the last watch event, when scraped."""
        leader = Gauge("finetune_leader", "1 on the replica that reconciles, else 0.", registry=self.registry)
        leader.set_function(lambda: float(leads()))
        depth = Gauge("finetune_queue_depth", "FineTuneJobs that wait for a pass, due or not.", registry=self.registry)
        depth.set_function(queue_depth)
        age = Gauge("finetune_watch_age_seconds", "Since the last event of any watch.", registry=self.registry)
        age.set_function(watch_age)

    def render(self) -> bytes:
        """Return the exposition text."""
        return generate_latest(self.registry)

    def progress_rejected(self, status: int) -> None:
        """Count a push that was refused."""
        self._rejects.labels(str(status)).inc()

    def progress(self, key: tuple[str, str], progress: ProgressStatus) -> None:
        """Show the latest report of a job, as the status has it."""
        for name, gauge in self._live.items():
            value = getattr(progress, name)
            if value is not None:
                gauge.labels(*key).set(float(value))

    def phase(self, key: tuple[str, str], phase: str | None) -> None:
        """Record a job's phase; None when the job is gone."""
        old = self._phases.pop(key, None)
        if phase is not None:
            self._phases[key] = phase
        if old == phase:
            return
        if old is not None:
            self._jobs.labels(key[0], old).dec()
        if phase is not None:
            self._jobs.labels(key[0], phase).inc()

    def drop_live(self, key: tuple[str, str]) -> None:
        """Drop the series of a finished job."""
        for gauge in self._live.values():
            gauge.remove(*key)

    def known(self) -> set[tuple[str, str]]:
        """Return the jobs whose phase is recorded."""
        return set(self._phases)

    def transition(self, namespace: str, old: FineTuneJobStatus, new: FineTuneJobStatus) -> None:
        """Count the changes of one status write."""
        before = {stage.name: stage for stage in old.stages}
        for stage in new.stages:
            self._stage(before.get(stage.name), stage)
        spent = (new.gpu_seconds or 0) - (old.gpu_seconds or 0)
        if spent > 0:
            self._gpu_seconds.labels(namespace).inc(spent)

    def _stage(self, old: StageStatus | None, new: StageStatus) -> None:
        moved = old is None or (old.attempt, old.state) != (new.attempt, new.state)
        if not moved:
            return
        over = new.state in ("Succeeded", "Failed")
        # A stage that is retried is Pending with the failure of the previous attempt. A suspended one has not ended.
        failed = new.state == "Failed" or (new.state == "Pending" and new.completion_time is not None)
        if new.last_failure is not None and failed:
            self._attempts.labels(new.name, new.last_failure.reason).inc()
        if over and new.start_time is not None and new.completion_time is not None:
            seconds = (parse_time(new.completion_time) - parse_time(new.start_time)).total_seconds()
            self._stage_seconds.labels(new.name, new.state).observe(seconds)
