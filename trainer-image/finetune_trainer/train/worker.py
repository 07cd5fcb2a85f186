"""One training process: `python -m finetune_trainer.train.worker ORDER` reads an Order and leaves an Outcome."""

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from finetune_api.layout import JobLayout
from finetune_api.result import StageResult
from finetune_trainer.errors import CRASHED, Preempted, StageError, unexpected
from finetune_trainer.network import patience
from finetune_trainer.progress.outage import OutageReporter
from finetune_trainer.progress.pipe import PipeReporter
from finetune_trainer.progress.watchdog import dump_on_request
from finetune_trainer.run_folder.stage_results import failed, read_prepared
from finetune_trainer.runtime.context import Context, Reporter
from finetune_trainer.runtime.sigterm import StopFlag, StopRequested, ignored
from finetune_trainer.runtime.stage_log import LOG_NAME, configure_logging
from finetune_trainer.storage.open import open_output
from finetune_trainer.train.follower import Follower
from finetune_trainer.train.leader import Leader
from finetune_trainer.train.messages import STOPPED, Order, Outcome
from finetune_trainer.train.ranks import ranks

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> int:
    """Do what an Order says; everything that goes wrong is part of the Outcome."""
    dump_on_request()
    order = Order.model_validate_json(Path(arguments[0]).read_bytes())
    _die_with(order.parent)
    configure_logging()
    stop = StopFlag()
    reporter = OutageReporter(PipeReporter(order.progress), stop)
    with stop.installed(), patience.watched(reporter.watch):
        outcome = _attempt(order, stop, reporter)
    with ignored():
        whole = order.outcome.with_suffix(".part")
        whole.write_text(outcome.model_dump_json(by_alias=True), encoding="utf-8")
        whole.rename(order.outcome)
    return 0


def _attempt(order: Order, stop: StopFlag, reporter: Reporter) -> Outcome:
    part: Leader | Follower | None = None
    try:
        plan = order.plan
        context = Context(
            plan,
            JobLayout(plan.job.namespace, plan.job.name, plan.job.uid),
            open_output(plan.output),
            reporter,
            order.scratch,
            order.attempt,
            stop,
        )
        mine = ranks.join()
        if not mine.leads:
            # What every process does is logged once.
            logging.getLogger("finetune_trainer").setLevel(logging.WARNING)
            part = Follower(context, read_prepared(context), order.weights, mine)
            part.run()
            return Outcome()
        part = Leader(context, read_prepared(context), order.memory_settings, order.weights, mine)
        return Outcome(result=part.run())
    except (Exception, StopRequested) as error:  # noqa: BLE001 - the last resort
        if part and (shortage := part.shortage(error)):
            return Outcome(shortage=shortage, memory_settings=part.memory_settings, weights=part.weights)
        failure = _failure(order, error, part.checkpoint_step if part else None)
        return Outcome(result=failure, weights=part.weights if part else None)


def _failure(order: Order, error: BaseException, checkpoint_step: int | None) -> StageResult:
    if isinstance(error, StopRequested):
        error = Preempted(STOPPED)
    if not isinstance(error, StageError):
        error = unexpected("train", error, order.scratch / LOG_NAME)
    return failed("train", error, checkpoint_step)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone: a GPU must never be held by an orphan."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(CRASHED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
