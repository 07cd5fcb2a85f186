"""Commands: one to its end, or several rows of them side by side, with what runs and how long is left."""

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
_TICK_SECONDS = 30.0
# What takes less did not have to be made: it says nothing about this machine.
_MADE_SECONDS = 10.0

Say = Callable[[str], None]


class PlatformError(Exception):
    """Something needed is not there; the message says what to do."""


def run(
    *command: str | Path, stdin: str | None = None, timeout: float = 1800, env: dict[str, str] | None = None
) -> str:
    """Run a command and return what it printed.

    Raises:
        PlatformError: it failed; with the command and the end of its output.
    """
    done = subprocess.run(
        [str(c) for c in command],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        check=False,
    )
    if done.returncode:
        raise _failure(command, done.returncode, done.stdout + done.stderr)
    return done.stdout


def _failure(command: Sequence[str | Path], status: int, output: str) -> PlatformError:
    line = shlex.join(str(c) for c in command)
    return PlatformError(f"`{line}` ended with {status}:\n{output.strip()[-4000:]}")


@dataclass
class Step:
    """A command, and the seconds it takes on two CPUs beside the others of `make demo`, where nothing is built yet."""

    title: str
    seconds: float
    command: tuple[str | Path, ...]
    started: float | None = field(default=None, init=False)
    took: float | None = field(default=None, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _output: IO[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it, in a session of its own, so that `stop` ends what it started too."""
        self.started = time.monotonic()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by what ends it
        self._process = subprocess.Popen(
            [str(c) for c in self.command],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,
        )

    def ended(self) -> bool:
        """Say whether it has ended.

        Raises:
            PlatformError: it failed.
        """
        assert self._process is not None
        assert self._output is not None
        assert self.started is not None
        if self._process.poll() is None:
            return False
        self.took = time.monotonic() - self.started
        self._output.seek(0)
        output = self._output.read().decode(errors="replace")
        self._output.close()
        if self._process.returncode:
            raise _failure(self.command, self._process.returncode, output)
        return True

    def stop(self) -> None:
        """End it and all that it started."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()
        if self._output is not None:
            self._output.close()

    def left(self, scale: float) -> float:
        """Return the seconds left, on a machine that takes `scale` times as long."""
        if self.took is not None:
            return 0.0
        whole = self.seconds * scale
        elapsed = 0.0 if self.started is None else time.monotonic() - self.started
        return max(whole - elapsed, whole / 20)


def side_by_side(say: Say, rows: Sequence[Sequence[Step]], after_seconds: float) -> None:
    """Run the steps of each row one after another, and the rows at the same time.

    `after_seconds` is what follows, for the estimate of the time left, on two CPUs.

    Raises:
        PlatformError: a step failed; the others are stopped.
    """
    began = ticked = time.monotonic()
    waiting = [list(row) for row in rows]
    running: list[tuple[Step, list[Step]]] = []
    try:
        while True:
            for row in waiting:
                if row and all(row is not other for _, other in running):
                    row[0].start()
                    running.append((row[0], row))
            if not running:
                return
            time.sleep(0.2)
            for step, row in list(running):
                if step.ended():
                    say(f"  {step.title:<58} {step.took:6.1f} s")
                    running.remove((step, row))
                    row.pop(0)
            if running and time.monotonic() - ticked > _TICK_SECONDS:
                ticked = time.monotonic()
                titles = ", ".join(step.title for step, _ in running)
                left = _left(rows, after_seconds)
                say(f"  {(ticked - began) / 60:4.1f} min: not yet {titles}; about {left / 60:.0f} min left")
    finally:
        for step, _ in running:
            step.stop()


def _left(rows: Sequence[Sequence[Step]], after_seconds: float) -> float:
    """Return the seconds left: those of the longest row and of what follows it, at the speed of this machine so far."""
    expected = actual = 0.0
    for step in (step for row in rows for step in row):
        if step.took is not None and step.took > _MADE_SECONDS:
            expected, actual = expected + step.seconds, actual + step.took
        elif step.took is None and step.started is not None and time.monotonic() - step.started > step.seconds:
            expected, actual = expected + step.seconds, actual + time.monotonic() - step.started
    scale = actual / expected if expected else 1.0
    return max(sum(step.left(scale) for step in row) for row in rows) + after_seconds * scale
