"""What counts as a sign of life. That a process which hangs is ended is in train/test_stage.py."""

import threading
from typing import Any, cast

from finetune_trainer.progress.watchdog import _TICKS, Watchdog

# Waited for in vain only by a test that fails.
PATIENCE_SECONDS = 60.0


class Clock(threading.Event):
    """The clock of a watch: time passes in parts, each when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Semaphore(0)
        self.passed = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.release()
        while not self.is_set() and not self.passed.acquire(timeout=0.02):
            pass
        return self.is_set()

    def tick(self, count: int = 1) -> None:
        """Let parts pass; returns when the watch waits for the next one."""
        for _ in range(count):
            self.passed.release()
            assert self.waits.acquire(timeout=PATIENCE_SECONDS)


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


def watched(timeout: int | None) -> tuple[Watchdog, Process, Clock, Any]:
    watch, process, clock = Watchdog(Reports(), timeout), Process(), Clock()
    watch._over = clock
    return watch, process, clock, watch.over([cast(Any, process)])


def test_silence_ends_the_process_after_it_was_asked_where_it_stands() -> None:
    watch, process, clock, over = watched(1800)
    with over:
        assert clock.waits.acquire(timeout=PATIENCE_SECONDS)
        clock.tick(_TICKS - 1)
        assert process.done == []
        clock.tick()
        assert process.done == ["signal 10"]
        clock.passed.release()
        assert process.killed.wait(PATIENCE_SECONDS)
    assert process.done == ["signal 10", "kill"]
    assert watch.hung_for == 1800


def test_each_report_is_a_sign_of_life() -> None:
    watch, process, clock, over = watched(1800)
    with over:
        assert clock.waits.acquire(timeout=PATIENCE_SECONDS)
        for _ in range(3):
            watch.report("Training", step=1)
            clock.tick(_TICKS)
    assert process.done == []
    assert watch.hung_for is None


def test_reports_are_passed_on() -> None:
    reports = Reports()
    Watchdog(reports, None).report("Loading")
    assert reports.all == ["Loading"]


def test_a_process_that_ends_in_time_is_left_alone() -> None:
    _, process, clock, over = watched(1800)
    with over:
        assert clock.waits.acquire(timeout=PATIENCE_SECONDS)
        clock.tick(_TICKS - 1)
    assert [t.name for t in threading.enumerate() if t.name == "watchdog"] == []
    assert process.done == []


def test_without_a_timeout_nothing_is_watched() -> None:
    watch, _, _, over = watched(None)
    with over:
        assert [t.name for t in threading.enumerate() if t.name == "watchdog"] == []
    assert watch.hung_for is None
