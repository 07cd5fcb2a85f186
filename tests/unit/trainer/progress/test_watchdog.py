"""What counts as a sign of life. That a process which hangs is ended is in test_train_stage.py."""

import threading
import time
from typing import Any, cast

from finetune_trainer.progress.watchdog import Watchdog


class Process:
    """Notes what is done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.killed = threading.Event()

    def send_signal(self, number: int) -> None:
        self.done.append(f"signal {number}")

    def kill(self) -> None:
        self.done.append("kill")
        self.killed.set()


class Reports:
    def __init__(self) -> None:
        self.all: list[str] = []

    def report(self, activity: str, **_: Any) -> None:
        self.all.append(activity)


def watched(timeout: int | None) -> tuple[Watchdog, Process, Any]:
    watch, process = Watchdog(Reports(), timeout), Process()
    return watch, process, watch.over([cast(Any, process)])


def test_silence_ends_the_process_after_it_was_asked_where_it_stands() -> None:
    watch, process, over = watched(1)
    began = time.monotonic()
    with over:
        assert process.killed.wait(20)
    assert time.monotonic() - began >= 1
    assert process.done == ["signal 10", "kill"]
    assert watch.hung_for == 1


def test_each_report_is_a_sign_of_life() -> None:
    watch, process, over = watched(1)
    with over:
        for _ in range(60):  # 1.5 seconds
            watch.report("Training", step=1)
            time.sleep(0.025)
    assert process.done == []
    assert watch.hung_for is None


def test_reports_are_passed_on() -> None:
    reports = Reports()
    Watchdog(reports, None).report("Loading")
    assert reports.all == ["Loading"]


def test_a_process_that_ends_in_time_is_left_alone() -> None:
    _, process, over = watched(1)
    with over:
        pass
    assert not process.killed.wait(1.2)


def test_without_a_timeout_nothing_is_watched() -> None:
    watch, _, over = watched(None)
    with over:
        assert [t.name for t in threading.enumerate() if t.name == "watchdog"] == []
    assert watch.hung_for is None
