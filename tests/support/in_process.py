"""A stage of the trainer in the process of the tests.

A process of its own spends ten seconds on importing its libraries; here it is paid once. Where a test is about the
process (signals, kills, what a pod runs), it starts one.
"""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_trainer.cli import main
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.run_folder.stage_results import read_prepared
from finetune_trainer.runtime.context import Context
from finetune_trainer.train import launcher
from finetune_trainer.train.messages import Outcome
from finetune_trainer.train.ranks.ranks import Ranks


def run(arguments: list[str], output: Path, variables: dict[str, str]) -> int:
    """Run the command line, print to `output`, and return the exit code; `variables` are environment variables."""
    with (
        _printing_to(output),
        _logging_restored(),
        # As in a process that is not a test's.
        warnings.catch_warnings(action="ignore"),
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(launcher, "run", _train_here)
        return main(arguments)


def _train_here(context: Context, memory_settings: MemorySettings | None, weights: Path | None) -> Outcome:
    from finetune_trainer.train.leader import Leader

    return Outcome(result=Leader(context, read_prepared(context), memory_settings, weights, Ranks()).run())


@contextlib.contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """Lead file descriptors 1 and 2 into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    with path.open("wb") as file:
        for number in kept:
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        for number, original in kept.items():
            os.dup2(original, number)
            os.close(original)


@contextlib.contextmanager
def _logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
