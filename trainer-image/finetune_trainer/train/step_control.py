"""What happens at the boundary of an optimizer step: progress, checkpoints, stopping. No training library in here."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_trainer.methods.interface import Decision
from finetune_trainer.runtime.context import Reporter
from finetune_trainer.runtime.sigterm import StopFlag
from finetune_trainer.train.checkpoints import BackgroundUpload
from finetune_trainer.train.divergence import DivergenceWatch
from finetune_trainer.train.holdout_watch import HoldoutWatch

# Speed is a mean over the last steps; the first one of an attempt compiles and does not count.
_WINDOW = 20


@dataclass(frozen=True)
class Cadence:
    """When a checkpoint is due; exactly one of the two is set."""

    every_seconds: int | None
    every_steps: int | None

    def due(self, seconds: float, steps: int) -> bool:
        """Return whether it is, so long after the last one."""
        if self.every_steps is not None:
            return steps >= self.every_steps
        return self.every_seconds is not None and seconds >= self.every_seconds


class StepControl:
    """Follows one attempt step by step."""

    def __init__(
        self,
        *,
        reporter: Reporter,
        stop: StopFlag,
        upload: BackgroundUpload,
        holdout: HoldoutWatch,
        divergence: DivergenceWatch,
        cadence: Cadence,
        step_tokens: Sequence[int],
        step_rows: Sequence[int],
        examples: int,
        compiles: bool,
        measuring_seconds: float,
        judging_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`step_tokens` and `step_rows`: supervised tokens and rows of each step of the whole run.

        `measuring_seconds` and `judging_seconds`: how long the hold-out rows and the whole evaluation took before
        training, for the time left.
        """
        self._reporter = reporter
        self._stop = stop
        self._upload = upload
        self._holdout = holdout
        self._divergence = divergence
        self._cadence = cadence
        self._tokens = step_tokens
        self._rows = step_rows
        self._examples = examples
        self._compiles = compiles
        self._measuring_seconds = measuring_seconds
        self._judging_seconds = judging_seconds
        self._clock = clock
        self._began = clock()
        self._first: int | None = None
        self._recent: deque[tuple[int, float]] = deque(maxlen=_WINDOW)
        self._saved_at = clock()
        self._saved_step = upload.newest_step or 0
        self._loss: float | None = None
        self._speed: float | None = None
        # By step, of this attempt; a step that was trained by an earlier one is not in it.
        self.step_seconds: dict[int, float] = {}
        self._trained_tokens = 0
        self._trained_seconds = 0.0

    @property
    def tokens_per_second(self) -> float | None:
        """Supervised tokens per second over this attempt, without its first step."""
        return self._trained_tokens / self._trained_seconds if self._trained_seconds else None

    @property
    def total_steps(self) -> int:
        """The number of steps of the whole run."""
        return len(self._tokens)

    def step_begins(self, done: int) -> None:
        """`done` steps are complete."""
        self._began = self._clock()
        if self._first is None:
            self._first = done
            self._report(done, compiling=self._compiles)

    def step_ends(self, done: int) -> Decision:
        """`done` counts this step."""
        now = self._clock()
        self.step_seconds[done] = now - self._began
        if self._first is not None and done > self._first + 1:
            tokens, seconds = self._tokens[done - 1], now - self._began
            self._recent.append((tokens, seconds))
            self._trained_tokens += tokens
            self._trained_seconds += seconds
            taken = sum(s for _, s in self._recent)
            self._speed = sum(t for t, _ in self._recent) / taken if taken else None
        # After SIGTERM the measurement is left to the next attempt: see `leader`.
        # The loss of this step is not known yet: training that diverges ends one step later.
        diverged = self._divergence.found is not None
        measured = not self._stop.requested and not diverged and self._holdout.due(done)
        best = measured and self._measure(done)
        early = self._holdout.ended or diverged
        last = done == self.total_steps or early
        stop = self._stop.requested
        due = self._cadence.due(now - self._saved_at, done - self._saved_step)
        # While the last checkpoint is being uploaded, training continues rather than waits. The last step is always
        # saved: a failure afterwards must not lead to training again.
        save = stop or last or best or (due and not self._upload.busy)
        if stop:
            # The operator shows where the job was stopped; when the pod has ended, it may be gone at once.
            self._report(done)
        if save:
            # The trainer deletes the checkpoint before the one that it writes, so its upload must be complete.
            self._upload.wait()
            self._saved_at, self._saved_step = self._clock(), done
        return Decision(save=save, stop=stop or early)

    def logged(self, done: int, loss: float) -> None:
        """The loss of step `done` is known."""
        self._divergence.add(loss)
        self._loss = loss
        self._report(done)

    def saved(self, folder: Path, step: int) -> None:
        """The trainer wrote a checkpoint to `folder`."""
        self._holdout.saved(folder, step)
        self._upload.start(folder, step, self._holdout.protected)

    def _measure(self, done: int) -> bool:
        started = self._clock()
        best = self._holdout.measure(done)
        if not self._stop.requested:
            self._measuring_seconds = self._clock() - started
        return best

    def _seconds_left(self, done: int) -> float | None:
        """Return the time until train ends; None before a step was measured.

        Steps and measurements are expected to take as long as the last ones, and the judgement of the result as long as
        that of the base: it scores the same rows and answers the same questions. The time to save and upload the
        adapter is left out, and an early stop is not expected.
        """
        if not self._recent:
            return None
        steps = (self.total_steps - done) * sum(s for _, s in self._recent) / len(self._recent)
        return steps + self._holdout.left(done) * self._measuring_seconds + self._judging_seconds

    def _report(self, done: int, *, compiling: bool = False) -> None:
        self._reporter.report(
            "Compiling" if compiling else "Saving" if self._stop.requested else "Training",
            step=done,
            total_steps=self.total_steps,
            percent=100 * done // self.total_steps,
            epoch=sum(self._rows[:done]) / self._examples,
            loss=self._loss,
            tokens_per_second=self._speed,
            eta_seconds=self._seconds_left(done),
        )
