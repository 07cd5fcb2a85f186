"""The process that trains: a fresh one for every rung, because only the end of a process gives GPU memory back.

`python -m finetune_trainer.train_process ORDER` reads an Order and leaves an Outcome. `run` starts it and waits.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

from finetune_api.base import Model
from finetune_api.exit_codes import reason
from finetune_api.layout import JobLayout
from finetune_api.plan import Plan
from finetune_api.result import StageResult
from finetune_trainer.context import Context
from finetune_trainer.errors import HungError, Preempted, StageError
from finetune_trainer.hang_watch import HangWatch, dump_on_request
from finetune_trainer.ladder import Shortage
from finetune_trainer.open_store import open_output
from finetune_trainer.outcome import read_prepared
from finetune_trainer.progress_pipe import PipeReporter, forward
from finetune_trainer.rung import Rung
from finetune_trainer.stage_log import LOG_NAME, configure_logging
from finetune_trainer.stop import StopFlag, StopRequested, ignored

COMMAND = [sys.executable, "-m", "finetune_trainer.train_process"]
STOPPED = "train was told to stop; it goes on from its last checkpoint by itself"
_CRASHED = 1
_PR_SET_PDEATHSIG = 1
# Of the threads that read the pipe, after the process has ended.
_DRAIN_SECONDS = 5


class Order(Model):
    """What the process is told."""

    plan: Plan
    attempt: int
    scratch: Path
    outcome: Path
    parent: int
    # File descriptor.
    progress: int
    # None: choose by the memory that is free.
    rung: Rung | None = None
    # The model's files, if an earlier process has fetched them.
    weights: Path | None = None


class Outcome(Model):
    """What the process leaves: a result, or that the GPU's memory was too small for `rung`."""

    result: StageResult | None = None
    shortage: Shortage | None = None
    rung: Rung | None = None
    weights: Path | None = None


def run(context: Context, rung: Rung | None, weights: Path | None) -> Outcome:
    """Train in a process of its own; SIGTERM is passed on to it.

    Raises:
        Preempted: it was stopped before it could say so itself.
        HungError: it made no progress and was killed.
        StageError: it died without an outcome; the exit code is the one a shell would show.
    """
    order_file, outcome_file = context.scratch / "train-order.json", context.scratch / "train-outcome.json"
    outcome_file.unlink(missing_ok=True)
    reading, writing = os.pipe()
    order = Order(
        plan=context.plan,
        attempt=context.attempt,
        scratch=context.scratch,
        outcome=outcome_file,
        parent=os.getpid(),
        progress=writing,
        rung=rung,
        weights=weights,
    )
    order_file.write_text(order.model_dump_json(by_alias=True), encoding="utf-8")
    process = subprocess.Popen([*COMMAND, str(order_file)], pass_fds=[writing])
    os.close(writing)
    pipe = os.fdopen(reading, encoding="utf-8", errors="replace")
    watch = HangWatch(context.reporter, context.plan.training.hang_timeout_seconds)
    thread = threading.Thread(target=forward, args=(pipe, watch), name="train-progress", daemon=True)
    thread.start()
    try:
        with context.stop.passed_on(process.terminate), watch.over(process):
            code = process.wait()
    finally:
        # Only an interruption leaves it running.
        process.kill()
        process.wait()
        thread.join(_DRAIN_SECONDS)
    if outcome_file.exists():
        return Outcome.model_validate_json(outcome_file.read_bytes())
    if watch.hung_for is not None and not context.stop.requested:
        raise HungError(watch.hung_for)
    raise _death(code, stopped=context.stop.requested)


def _death(code: int, *, stopped: bool) -> StageError:
    # However it ends: SIGTERM may come before the process can handle it, and kill it or break its first imports.
    if stopped:
        return Preempted(STOPPED)
    if code == -signal.SIGKILL:
        return StageError(
            128 + signal.SIGKILL,
            "the training process was killed, most likely because the pod's main memory was too small; raise the "
            "memory of spec.compute.resources.train",
        )
    if code < 0:
        return StageError(128 - code, f"the training process died of {signal.Signals(-code).name}")
    return StageError(code or _CRASHED, f"the training process ended with code {code} and no result")


def main(arguments: Sequence[str]) -> int:
    """Do what an Order says; everything that goes wrong is part of the Outcome."""
    dump_on_request()
    order = Order.model_validate_json(Path(arguments[0]).read_bytes())
    _die_with(order.parent)
    configure_logging()
    stop = StopFlag()
    with stop.installed():
        outcome = _attempt(order, stop)
    with ignored():
        whole = order.outcome.with_suffix(".part")
        whole.write_text(outcome.model_dump_json(by_alias=True), encoding="utf-8")
        whole.rename(order.outcome)
    return 0


def _attempt(order: Order, stop: StopFlag) -> Outcome:
    from finetune_trainer.training import Training

    training: Training | None = None
    try:
        plan = order.plan
        context = Context(
            plan,
            JobLayout(plan.job.namespace, plan.job.name, plan.job.uid),
            open_output(plan.output),
            PipeReporter(order.progress),
            order.scratch,
            order.attempt,
            stop,
        )
        training = Training(context, read_prepared(context), order.rung, order.weights)
        return Outcome(result=training.run())
    except (Exception, StopRequested) as error:  # noqa: BLE001 - the last resort
        if training and (shortage := training.shortage(error)):
            return Outcome(shortage=shortage, rung=training.rung, weights=training.weights)
        return Outcome(result=_failure(order, error, training.checkpoint_step if training else None))


def _failure(order: Order, error: BaseException, checkpoint_step: int | None) -> StageResult:
    if isinstance(error, StopRequested):
        error = Preempted(STOPPED)
    if isinstance(error, StageError):
        code, message = error.exit_code, error.message
    else:
        # Into the log only: a user can do nothing with a traceback.
        with (order.scratch / LOG_NAME).open("a", encoding="utf-8") as file:
            traceback.print_exception(error, file=file)
        code, message = _CRASHED, f"unexpected {type(error).__name__} in train"
    return StageResult(
        stage="train", exit_code=code, reason=reason(code), message=message, checkpoint_step=checkpoint_step
    )


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone: a GPU must never be held by an orphan."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(_CRASHED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
