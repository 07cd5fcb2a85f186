"""The processes that train, one per GPU: fresh ones for every rung, since only the end of a process gives memory back.

`python -m finetune_trainer.train.launcher ORDER` reads an Order and leaves an Outcome. `run` starts it and waits.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from finetune_api.exit_codes import ExitCode
from finetune_trainer.errors import CRASHED, HungError, Preempted, StageError
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.progress.pipe import forward
from finetune_trainer.progress.watchdog import Watchdog
from finetune_trainer.run_folder.stage_results import failed
from finetune_trainer.runtime.context import Context
from finetune_trainer.train import process_group
from finetune_trainer.train.messages import STOPPED, Order, Outcome, went_well
from finetune_trainer.train.ranks import ranks

COMMAND = [sys.executable, "-m", "finetune_trainer.train.worker"]
# Of the threads that read the pipe, after the process has ended.
_DRAIN_SECONDS = 5


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


def run(
    context: Context, memory_settings: MemorySettings | None, weights: Path | None, others: Others | None = None
) -> Outcome:
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
            memory_settings=memory_settings,
            weights=weights,
        )
        order_file = context.scratch / f"train-order-{rank}.json"
        order_file.write_text(order.model_dump_json(by_alias=True), encoding="utf-8")
        environment = os.environ | ranks.variables(context.node, rank, context.processes, port)
        processes.append(subprocess.Popen([*COMMAND, str(order_file)], pass_fds=[writing], env=environment))
    os.close(writing)
    pipe = os.fdopen(reading, encoding="utf-8", errors="replace")
    # The leader alone tells how far training is.
    watch = Watchdog(context.reporter, context.plan.training.hang_timeout_seconds if context.node.leads else None)
    thread = threading.Thread(target=forward, args=(pipe, watch), name="train-progress", daemon=True)
    thread.start()

    def went_wrong(rank: int) -> bool:
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
            ended = process_group.wait(processes, went_wrong)
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
        return Outcome(result=failed("train", HungError(watch.hung_for)), weights=fetched)
    for rank in ended:
        # The first one is the cause.
        if found[rank] is None:
            return Outcome(result=failed("train", _death(processes[rank].returncode, stopped=stopped)), weights=fetched)
    return next((outcome for outcome in found if outcome is not None and not went_well(outcome)), Outcome())


def _read(file: Path) -> Outcome | None:
    return Outcome.model_validate_json(file.read_bytes()) if file.exists() else None


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
