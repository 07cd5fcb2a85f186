"""Copies everything that this process and its children print to a file."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

# In the scratch folder.
LOG_NAME = "stage.log"
# A child that outlives the stage may hold the pipe open.
_DRAIN_SECONDS = 5


@contextmanager
def copied_to(path: Path) -> Iterator[TextIO | None]:
    """Copy file descriptors 1 and 2 to `path` inside; yields the terminal to draw on, or None if there is none.

    `tee` does the copying: a thread of this process could not while a C library holds the lock and prints, and the last
    output of a killed process would be lost.
    """
    _flush()
    terminal = os.dup(2)
    outputs = {fd: os.dup(fd) for fd in (1, 2)}
    tee = subprocess.Popen(
        ["tee", "-a", "--", str(path)], stdin=subprocess.PIPE, stdout=outputs[2], start_new_session=True
    )
    assert tee.stdin is not None
    for fd in outputs:
        os.dup2(tee.stdin.fileno(), fd)
    tee.stdin.close()
    try:
        # New streams, since the caller's may use other descriptors. They stay open: libraries' handlers keep them.
        with (
            os.fdopen(terminal, "w", encoding="utf-8", errors="replace") as stream,
            redirect_stdout(_stream(1)),
            redirect_stderr(_stream(2)),
        ):
            try:
                yield stream if stream.isatty() else None
            finally:
                _flush()
    finally:
        for fd, original in outputs.items():
            os.dup2(original, fd)
            os.close(original)
        try:
            tee.wait(_DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            tee.kill()
            tee.wait()


def configure_logging() -> None:
    """Log this program's messages and the libraries' warnings to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("finetune_trainer").setLevel(logging.INFO)


def _stream(descriptor: int) -> TextIO:
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
