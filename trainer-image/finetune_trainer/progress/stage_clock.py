"""How far a stage is, and how long each part took."""

import contextlib
import time
from collections.abc import Callable, Iterator

from finetune_api.progress import Activity
from finetune_trainer.runtime.context import Reporter


class StageClock:
    """Reports the parts of a stage, one after another."""

    def __init__(self, reporter: Reporter, clock: Callable[[], float] = time.monotonic) -> None:
        self._reporter = reporter
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str, activity: Activity) -> Iterator[Callable[[int], None]]:
        """Report `activity` and add the seconds inside to `seconds[name]`; yields a function of the percentage done."""
        started = self._clock()
        self._reporter.report(activity)

        def advance(percent: int) -> None:
            # No ETA: how long the other parts of the stage will take is not known.
            self._reporter.report(activity, percent=percent)

        try:
            yield advance
        finally:
            self.add(name, self._clock() - started)

    def add(self, name: str, seconds: float) -> None:
        """Count time that was spent elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @property
    def timings(self) -> dict[str, float]:
        """Seconds by part, as a StageResult has them."""
        return {name: round(seconds, 1) for name, seconds in self.seconds.items()}
