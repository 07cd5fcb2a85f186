"""Shows that a stage waits for a server, and afterwards again what it did before."""

from typing import Any

from finetune_api.progress import Activity
from finetune_trainer.network.patience import Watch
from finetune_trainer.runtime.context import Reporter
from finetune_trainer.runtime.sigterm import StopFlag


class OutageReporter:
    """See `context.Reporter`: passes every report on, and remembers the last one."""

    def __init__(self, reporter: Reporter, stop: StopFlag) -> None:
        self._reporter = reporter
        self._last: tuple[Activity, dict[str, Any]] = ("Starting", {})
        self.watch = Watch(self._waits, self._over, lambda: stop.requested)

    def report(self, activity: Activity, **figures: Any) -> None:
        """Pass it on. Never raises."""
        self._last = activity, figures
        self._reporter.report(activity, **figures)

    def _waits(self) -> None:
        self._reporter.report("Waiting")

    def _over(self) -> None:
        activity, figures = self._last
        self._reporter.report(activity, **figures)
