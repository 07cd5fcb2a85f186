"""Kills training processes that no longer make progress.

It watches from outside: a process that hangs in native code (a CUDA call, a lock) may never run Python again.
"""

import contextlib
import faulthandler
import logging
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from finetune_api.progress import Activity
from finetune_trainer.runtime.context import Reporter

log = logging.getLogger(__name__)

# Makes the process print the Python stack of each of its threads, by a handler in C.
_DUMP = signal.SIGUSR1
_DUMP_SECONDS = 2.0
# The limit is counted in so many parts, each by waiting for it: time in which this process is stopped as well (a laptop
# that sleeps, a frozen container) is then not counted.
_TICKS = 20


def dump_on_request() -> None:
    """Let this process print its stacks on stderr when the watchdog asks for them; call it first."""
    faulthandler.register(_DUMP, all_threads=True)


def end(processes: Sequence[subprocess.Popen[bytes]], over: threading.Event) -> None:
    """Let processes that hang print their stacks, and kill them; `over` is set when they have ended."""
    for process in processes:
        process.send_signal(_DUMP)
    over.wait(_DUMP_SECONDS)
    for process in processes:
        process.kill()


class Watchdog:
    """A Reporter that passes reports on and takes each as a sign of life.

    Training reports each step, each new activity and each further percent of it.
    """

    def __init__(self, reporter: Reporter, timeout_seconds: int | None) -> None:
        """`timeout_seconds` without a report: the processes are killed; None: never."""
        self._reporter = reporter
        self._timeout = timeout_seconds
        self._reported = threading.Event()
        self._over = threading.Event()
        # Set if the processes were killed: the seconds without a report.
        self.hung_for: int | None = None

    def report(self, activity: Activity, **figures: Any) -> None:
        """Pass it on. Never raises."""
        self.alive()
        self._reporter.report(activity, **figures)

    def alive(self) -> None:
        """Take a sign of life from another pod."""
        self._reported.set()

    @contextlib.contextmanager
    def over(self, processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
        """Inside, watch the processes."""
        if self._timeout is None:
            yield
            return
        thread = threading.Thread(target=self._watch, args=(processes, self._timeout), name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _watch(self, processes: Sequence[subprocess.Popen[bytes]], timeout: int) -> None:
        silent = 0
        while not self._over.wait(timeout / _TICKS):
            if self._reported.is_set():
                self._reported.clear()
                silent = 0
                continue
            silent += 1
            if silent >= _TICKS:
                self.hung_for = timeout
                log.error("no progress for %d s: the training process hangs; its threads are at:", timeout)
                end(processes, self._over)
                return
