"""A stage that waits for a server shows it, and then what it does again."""

from typing import Any

from finetune_trainer.progress.outage import OutageReporter
from finetune_trainer.runtime.sigterm import StopFlag


class Reports:
    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, Any]]] = []

    def report(self, activity: str, **figures: Any) -> None:
        self.all.append((activity, figures))


def test_waiting_is_shown_and_ends() -> None:
    reports = Reports()
    reporter = OutageReporter(reports, StopFlag())
    reporter.report("Downloading", percent=40)
    reporter.watch.waits()
    reporter.watch.over()
    assert reports.all == [("Downloading", {"percent": 40}), ("Waiting", {}), ("Downloading", {"percent": 40})]


def test_sigterm_ends_the_wait() -> None:
    stop = StopFlag()
    watch = OutageReporter(Reports(), stop).watch
    assert not watch.stopped()
    with stop.deferred():
        stop.request()
    assert watch.stopped()
