"""Reports progress: on the terminal or in the log, and to the operator if there is one."""

import logging
import math
import time
from collections.abc import Callable
from typing import TextIO

from finetune_api.progress import Activity, Progress
from finetune_api.spec import Stage

_LOG_EVERY_SECONDS = 10.0
_BAR_WIDTH = 24
# Activities in and after training that its ETA includes, or that follow it at once.
_AFTER_STEPS: tuple[Activity, ...] = ("Evaluating", "Saving", "Uploading")
log = logging.getLogger(__name__)


class ProgressReporter:
    """See `context.Reporter`. `send` gets every Progress, and decides what to send to the operator."""

    def __init__(
        self,
        stage: Stage,
        attempt: int,
        terminal: TextIO | None = None,
        send: Callable[[Progress], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stage = stage
        self._attempt = attempt
        self._terminal = terminal
        self._send = send
        self._clock = clock
        self._activity: Activity | None = None
        self._percent = 0
        self._ends_at: float | None = None
        self._logged_at = float("-inf")

    def report(
        self,
        activity: Activity,
        *,
        step: int | None = None,
        total_steps: int | None = None,
        percent: int | None = None,
        epoch: float | None = None,
        loss: float | None = None,
        tokens_per_second: float | None = None,
        eta_seconds: float | None = None,
    ) -> None:
        """Replace the current progress. Never raises.

        An activity starts at 0 %, and keeps its percentage until another one is reported. While training is interrupted
        by a measurement, and when the result is judged, the ETA runs on from the last step's.
        """
        try:
            self._follow(activity, percent, eta_seconds)
            progress = Progress(
                stage=self._stage,
                attempt=self._attempt,
                activity=activity,
                step=step,
                total_steps=total_steps,
                percent=self._percent,
                epoch=_decimal(epoch, 2),
                loss=_decimal(loss, 4),
                tokens_per_second=_whole(tokens_per_second),
                eta_seconds=self._seconds_left(),
            )
            self._show(progress)
            if self._send:
                self._send(progress)
        except Exception:
            # A stage never fails because its progress cannot be reported.
            log.debug("progress could not be reported", exc_info=True)

    def _follow(self, activity: Activity, percent: int | None, eta_seconds: float | None) -> None:
        if percent is not None:
            self._percent = min(max(percent, 0), 100)
        elif activity != self._activity:
            self._percent = 0
        if eta_seconds is not None and math.isfinite(eta_seconds):
            self._ends_at = self._clock() + eta_seconds
        elif activity not in _AFTER_STEPS:
            self._ends_at = None

    def _seconds_left(self) -> int | None:
        """Return the ETA; None once it is over, because then nobody knows."""
        left = 0 if self._ends_at is None else round(self._ends_at - self._clock())
        return left if left > 0 else None

    def _show(self, progress: Progress) -> None:
        new = progress.activity != self._activity
        self._activity = progress.activity
        if self._terminal:
            start = "\n" if new else "\r\033[K"
            self._terminal.write(start + bar(progress))
            self._terminal.flush()
        elif new or self._clock() - self._logged_at >= _LOG_EVERY_SECONDS:
            self._logged_at = self._clock()
            log.info("%s", line(progress))


def _decimal(value: float | None, digits: int) -> str | None:
    return f"{value:.{digits}f}" if value is not None and math.isfinite(value) else None


def _whole(value: float | None) -> int | None:
    return max(0, round(value)) if value is not None and math.isfinite(value) else None


def line(progress: Progress) -> str:
    """Return the progress in words, such as `Training step 12/60, loss 1.2345, 310 tokens/s, 40 s left`."""
    parts = [
        progress.activity + (f" step {progress.step}/{progress.total_steps}" if progress.step is not None else ""),
        f"{progress.percent} %" if progress.percent else "",
        f"loss {progress.loss}" if progress.loss is not None else "",
        f"{progress.tokens_per_second} tokens/s" if progress.tokens_per_second is not None else "",
        f"{progress.eta_seconds} s left" if progress.eta_seconds is not None else "",
    ]
    return ", ".join(p for p in parts if p)


def bar(progress: Progress) -> str:
    """Return the line, with a bar in front if it is known how much is left."""
    if progress.step is not None and progress.total_steps:
        done = progress.step / progress.total_steps
    elif progress.percent:
        done = progress.percent / 100
    else:
        return line(progress)
    filled = round(min(done, 1.0) * _BAR_WIDTH)
    return f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {line(progress)}"
