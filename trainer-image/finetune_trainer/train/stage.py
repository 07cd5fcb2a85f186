"""The train stage: starts the training processes, and new ones with more frugal settings if GPU memory runs out.

No training library is loaded here: the whole GPU belongs to the process that trains on it.
"""

import contextlib
import logging
from dataclasses import replace

from finetune_api import shares
from finetune_api.exit_codes import ExitCode
from finetune_api.result import StageResult
from finetune_trainer.data import length
from finetune_trainer.errors import OutOfGPUMemoryError, Preempted, SettingsError, StageError
from finetune_trainer.gpu import memory_fallback
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.model import adapter
from finetune_trainer.run_folder import stage_results
from finetune_trainer.run_folder.prepared import Prepared
from finetune_trainer.runtime.context import Context
from finetune_trainer.train import checkpoints
from finetune_trainer.train.kept_memory_settings import KeptMemorySettings
from finetune_trainer.train.messages import STOPPED
from finetune_trainer.train.pods import rounds
from finetune_trainer.train.pods.rounds import TrainRound

log = logging.getLogger(__name__)


def run(context: Context) -> StageResult:
    """Train the adapter of prepare's run; a failed result has the step of the checkpoint to resume from.

    Raises:
        StageError: training cannot start.
        StopRequested: SIGTERM came while no process trained.
    """
    training = context.plan.training
    processes = context.processes * context.node.count
    refused = shares.refusal(training.method, training.batch_size, training.micro_batch_size, processes)
    if refused is not None:
        raise SettingsError(refused)
    description = stage_results.read_prepared(context)
    # From here on the plan has every number, in all processes and in what is reported.
    training = length.resolved(training, description.total_steps)
    context = replace(context, plan=context.plan.model_copy(update={"training": training}))
    if (finished := _finished_before(context, description)) is not None:
        log.info("this run was trained before; nothing to do")
        return finished if context.node.leads else StageResult(stage="train", exit_code=ExitCode.OK)
    result = rounds.run(context, lambda train: _train(context, description, train))
    if result.exit_code != ExitCode.OK and result.checkpoint_step is None:
        return result.model_copy(update={"checkpoint_step": _checkpoint_step(context, description)})
    return result


def _train(context: Context, description: Prepared, train: TrainRound) -> StageResult:
    training = context.plan.training
    process_batch = shares.process_batch_size(training.batch_size, context.processes * context.node.count)
    kept = KeptMemorySettings(context.store, context.layout.state, description.run_id)
    memory_settings, weights = kept.read(), None
    tried: list[MemorySettings] = []
    while True:
        ended = train(memory_settings, weights)
        if ended.result is not None:
            return ended.result
        assert ended.shortage is not None
        assert ended.memory_settings is not None
        tried.append(ended.memory_settings)
        memory_settings, weights = memory_fallback.more_frugal(ended.memory_settings, process_batch), ended.weights
        if memory_settings is None:
            raise OutOfGPUMemoryError(memory_fallback.exhausted(ended.shortage, tried))
        log.warning(
            "%s", memory_fallback.stepped_down(training, ended.shortage, ended.memory_settings, memory_settings)
        )
        if context.node.leads:
            kept.write(memory_settings)
        if context.stop.requested:
            raise Preempted(STOPPED)


def _checkpoint_step(context: Context, description: Prepared) -> int | None:
    """Return what a process that died could not report: an interruption after progress does not use up a retry."""
    with contextlib.suppress(StageError):
        return checkpoints.newest_step(context.store, context.layout.checkpoints, description.run_id)
    return None


def _finished_before(context: Context, description: Prepared) -> StageResult | None:
    result = stage_results.find(context.store, context.layout, "train")
    if result is None or result.run_id != description.run_id:
        return None
    folder = context.layout.run(description.run_id)
    sizes = {stored.key: stored.size_bytes for stored in context.store.list(f"{folder}/{adapter.FOLDER}")}
    whole = all(sizes.get(f"{folder}/{a.path}") == a.size_bytes for a in result.artifacts)
    return result if result.artifacts and whole else None
