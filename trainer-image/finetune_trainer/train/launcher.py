"""Starts the training processes of this pod, one per GPU, and waits for them.

Each set of memory settings gets new processes, since only the end of a process frees all its GPU memory.
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
# How long the threads that read the pipe may take after the process ended.
_DRAIN_SECONDS = 5


class Others(Protocol):
    """The other pods that train together with this one."""

    # Where the leader's process listens for all others.
    port: int

    def process_failed(self) -> None:
        """Take note that a process of this pod failed."""

    def over(
        self, processes: Sequence[subprocess.Popen[bytes]], alive: Callable[[], None]
    ) -> AbstractContextManager[None]:
        """Inside, this pod's processes are stopped and ended when those of other pods are.

        `alive` is called when those of another pod have made progress.
        """


def run(
    context: Context, memory_settings: MemorySettings | None, weights: Path | None, others: Others | None = None
) -> Outcome:
    """Train in this pod's processes; SIGTERM is passed on to them.

    The exit code of a process that died without an outcome is the one that a shell would show.
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
    # Only the leader reports progress.
    watch = Watchdog(context.reporter, context.plan.training.hang_timeout_seconds if context.node.leads else None)
    thread = threading.Thread(target=forward, args=(pipe, watch), name="train-progress", daemon=True)
    thread.start()

    def went_wrong(rank: int) -> bool:
        outcome = _read(outcomes[rank])
        if outcome is not None and went_well(outcome):
            return False
        if others:
            others.process_failed()
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
    """Return the outcome that is the cause: when one process fails, the others fail because of it.

    None: no process left it.
    """
    left = [outcome for outcome in found if outcome is not None]
    leader = found[0]
    if leader is not None and leader.result is not None and went_well(leader):
        return leader
    for outcome in left:
        if outcome.shortage is not None:
            return outcome
    for outcome in left:
        if outcome.result is not None and outcome.result.exit_code not in (ExitCode.OK, CRASHED):
            return outcome
    return None


def _death(code: int, *, stopped: bool) -> StageError:
    # Whatever the code: SIGTERM may come before the process can handle it, and kill it or break its first imports.
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
