"""Takes metrics from training and passes them on in the background."""

import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from finetune_trainer.network import patience

# The most points that wait for a server that is down: three days at one step in 25 seconds. Newer ones are dropped.
MOST_WAITING = 10_000
_EVERY_SECONDS = 10.0
# A server that hangs delays the end of a run by this much, once.
_CLOSE_SECONDS = 30.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """Metrics of one step; `time` is in seconds since 1970."""

    step: int
    time: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """How the attempt ended; MLflow's words. `tags` are facts about the result, such as its verdict."""

    status: Literal["FINISHED", "FAILED", "KILLED"]
    tags: Mapping[str, str] = field(default_factory=dict)


class Sink(Protocol):
    """One tracker. Only one thread uses it; its first error is logged, and the points are kept for later."""

    @property
    def name(self) -> str:
        """How messages name it."""

    def write(self, points: Sequence[Point]) -> None:
        """Take points, in the order of their steps. Points of a failed call are passed again."""

    def close(self, outcome: Outcome) -> None:
        """Nothing comes after."""


class Tracker:
    """Passes every point to all sinks, each in a thread of its own."""

    def __init__(self, sinks: Sequence[Sink], resumed_step: int, every_seconds: float = _EVERY_SECONDS) -> None:
        self._resumed_step = resumed_step
        self._workers = [_Worker(sink, every_seconds) for sink in sinks]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the metrics after `step`; those that are not finite are left out.

        So is a step before the one that this attempt resumes from: it was logged then.
        """
        if step < self._resumed_step:
            return
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        if finite:
            point = Point(step, time.time(), finite)
            for worker in self._workers:
                worker.add(point)

    def close(self, outcome: Outcome, timeout: float = _CLOSE_SECONDS) -> None:
        """Pass on what is left, and wait at most `timeout` seconds for it."""
        deadline = time.monotonic() + timeout
        for worker in self._workers:
            worker.end(outcome)
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))


class _Worker:
    def __init__(self, sink: Sink, every_seconds: float) -> None:
        self._sink = sink
        self._every_seconds = every_seconds
        self._lock = threading.Lock()
        self._waiting: list[Point] = []
        self._outcome: Outcome | None = None
        self._ended = threading.Event()
        self._logged = False
        # A daemon thread: a server that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name=f"tracking {sink.name}", daemon=True)
        self._thread.start()

    def add(self, point: Point) -> None:
        with self._lock:
            if len(self._waiting) < MOST_WAITING:
                self._waiting.append(point)

    def end(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._ended.set()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._warn("does not answer")

    def _run(self) -> None:
        with patience.brief():
            self._follow()

    def _follow(self) -> None:
        while not self._ended.wait(self._every_seconds):
            self._pass_on()
        self._pass_on()
        assert self._outcome is not None  # end sets it first
        try:
            self._sink.close(self._outcome)
        except Exception as error:  # noqa: BLE001 - whatever a tracking library raises, training continues
            self._warn(_words(error))

    def _pass_on(self) -> None:
        with self._lock:
            points = list(self._waiting)
        if not points:
            return
        try:
            self._sink.write(points)
        except Exception as error:  # noqa: BLE001 - see above
            self._warn(_words(error))
            return
        with self._lock:
            del self._waiting[: len(points)]

    def _warn(self, what: str) -> None:
        if not self._logged:
            self._logged = True
            log.warning(
                "%s did not accept the metrics of this training, which continues without it: %s",
                *(self._sink.name, what),
            )


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"
