"""The processes that train, one per GPU: fresh ones for every rung, since only the end of a process gives memory back.

`python -m finetune_trainer.train.launcher ORDER` reads an Order and leaves an Outcome. `run` starts it and waits.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from finetune_api.base import Model
from finetune_api.exit_codes import ExitCode, reason
from finetune_api.layout import JobLayout
from finetune_api.plan import Plan
from finetune_api.result import StageResult
from finetune_trainer.errors import HungError, Preempted, StageError
from finetune_trainer.gpu.memory_fallback import Shortage
from finetune_trainer.gpu.memory_settings import Rung
from finetune_trainer.progress.pipe import PipeReporter, forward
from finetune_trainer.progress.watchdog import HangWatch, dump_on_request
from finetune_trainer.run_folder.stage_results import read_prepared
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.sigterm import StopFlag, StopRequested, ignored
from finetune_trainer.runtime.stage_log import LOG_NAME, configure_logging
from finetune_trainer.storage.open import open_output
from finetune_trainer.train import process_group
from finetune_trainer.train.ranks import ranks

COMMAND = [sys.executable, "-m", "finetune_trainer.train.launcher"]
STOPPED = "train was told to stop; it goes on from its last checkpoint by itself"
CRASHED = 1
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
    """What a process leaves: a result, or that the GPU's memory was too small for `rung`.

    One that follows has neither if all went well.
    """

    result: StageResult | None = None
    shortage: Shortage | None = None
    rung: Rung | None = None
    weights: Path | None = None


class Others(Protocol):
    """The other pods that train together with this one."""

    # Of the leader's process, where all processes meet.
    port: int

    def failed(self) -> None:
        """Be told that a process of this pod failed."""

    def over(
        self, processes: Sequence[subprocess.Popen[bytes]], alive: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Inside, this pod's processes are stopped and ended when those of other pods are.

        `alive` is called when those of another pod have got further.
        """


def run(context: Context, rung: Rung | None, weights: Path | None, others: Others | None = None) -> Outcome:
    """Train in this pod's processes; SIGTERM is passed on to them.

    Of a process that died without an outcome, the exit code is the one a shell would show.
    """
    reading, writing = os.pipe()
    port = others.port if others else process_group.free_port()
    outcomes = [context.scratch / f"train-outcome-{rank}.json" for rank in range(context.processes)]
    processes: list[subprocess.Popen[bytes]] = []
    for rank, outcome_file in enumerate(outcomes):
        outcome_file.unlink(missing_ok=True)
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
        order_file = context.scratch / f"train-order-{rank}.json"
        order_file.write_text(order.model_dump_json(by_alias=True), encoding="utf-8")
        environment = os.environ | ranks.variables(context.node, rank, context.processes, port)
        processes.append(subprocess.Popen([*COMMAND, str(order_file)], pass_fds=[writing], env=environment))
    os.close(writing)
    pipe = os.fdopen(reading, encoding="utf-8", errors="replace")
    # The leader alone tells how far training is.
    watch = HangWatch(context.reporter, context.plan.training.hang_timeout_seconds if context.node.leads else None)
    thread = threading.Thread(target=forward, args=(pipe, watch), name="train-progress", daemon=True)
    thread.start()

    def failed(rank: int) -> bool:
        outcome = _read(outcomes[rank])
        if outcome is not None and went_well(outcome):
            return False
        if others:
            others.failed()
        return True

    try:
        with (
            context.stop.passed_on(lambda: process_group.terminate(processes)),
            watch.over(processes),
            others.over(processes, watch.alive) if others else nullcontext(),
        ):
            ended = process_group.wait(processes, failed)
    finally:
        # Only an interruption leaves them running.
        process_group.kill(processes)
        for process in processes:
            process.wait()
        thread.join(_DRAIN_SECONDS)
    found = [_read(file) for file in outcomes]
    fetched = next((outcome.weights for outcome in found if outcome is not None and outcome.weights), weights)
    stopped = context.stop.requested
    if (cause := _cause(found)) is not None:
        return cause.model_copy(update={"weights": fetched})
    if watch.hung_for is not None and not stopped:
        return Outcome(result=_result(HungError(watch.hung_for)), weights=fetched)
    for rank in ended:
        # The first one is the cause.
        if found[rank] is None:
            return Outcome(result=_result(_death(processes[rank].returncode, stopped=stopped)), weights=fetched)
    return next((outcome for outcome in found if outcome is not None and not went_well(outcome)), Outcome())


def _read(file: Path) -> Outcome | None:
    return Outcome.model_validate_json(file.read_bytes()) if file.exists() else None


def went_well(outcome: Outcome) -> bool:
    """Whether a process did what it had to."""
    if outcome.shortage is not None:
        return False
    return outcome.result is None or outcome.result.exit_code == ExitCode.OK


def _cause(found: Sequence[Outcome | None]) -> Outcome | None:
    """Return how it ended, of all that the processes say: when one fails, the others fail for want of it.

    None: none of them says it.
    """
    told = [outcome for outcome in found if outcome is not None]
    leader = found[0]
    if leader is not None and leader.result is not None and went_well(leader):
        return leader
    for outcome in told:
        if outcome.shortage is not None:
            return outcome
    for outcome in told:
        if outcome.result is not None and outcome.result.exit_code not in (ExitCode.OK, CRASHED):
            return outcome
    return None


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
    return StageError(code or CRASHED, f"the training process ended with code {code} and no result")


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
    from finetune_trainer.train.follower import Follower
    from finetune_trainer.train.leader import Training

    part: Training | Follower | None = None
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
        mine = ranks.join()
        if not mine.leads:
            # What all do is told once in a pod.
            logging.getLogger("finetune_trainer").setLevel(logging.WARNING)
            part = Follower(context, read_prepared(context), order.weights, mine)
            part.run()
            return Outcome()
        part = Training(context, read_prepared(context), order.rung, order.weights, mine)
        return Outcome(result=part.run())
    except (Exception, StopRequested) as error:  # noqa: BLE001 - the last resort
        if part and (shortage := part.shortage(error)):
            return Outcome(shortage=shortage, rung=part.rung, weights=part.weights)
        failure = _failure(order, error, part.checkpoint_step if part else None)
        return Outcome(result=failure, weights=part.weights if part else None)


def _failure(order: Order, error: BaseException, checkpoint_step: int | None) -> StageResult:
    if isinstance(error, StopRequested):
        error = Preempted(STOPPED)
    if not isinstance(error, StageError):
        # Into the log only: a user can do nothing with a traceback.
        with (order.scratch / LOG_NAME).open("a", encoding="utf-8") as file:
            traceback.print_exception(error, file=file)
        error = StageError(CRASHED, f"unexpected {type(error).__name__} in train")
    return _result(error).model_copy(update={"checkpoint_step": checkpoint_step})


def _result(error: StageError) -> StageResult:
    code = error.exit_code
    return StageResult(stage="train", exit_code=code, reason=reason(code), message=error.message)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone: a GPU must never be held by an orphan."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(CRASHED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
