"""What a stage leaves for the next one and for the operator."""

import os
import sys
from pathlib import Path

from finetune_api.exit_codes import reason
from finetune_api.layout import JobLayout
from finetune_api.result import StageResult
from finetune_api.spec import Stage
from finetune_trainer.errors import GuardError, NoResultError, SettingsError, StageError
from finetune_trainer.run_folder import prepared
from finetune_trainer.run_folder.prepared import Prepared
from finetune_trainer.runtime.context import Context
from finetune_trainer.storage.store import Store


def failed(stage: Stage, error: StageError, checkpoint_step: int | None = None) -> StageResult:
    """Return the result of a stage that ended with `error`: the only form in which a failure leaves a process.

    `checkpoint_step`: of train, the newest complete checkpoint in the bucket.
    """
    return StageResult(
        stage=stage,
        exit_code=error.exit_code,
        reason=reason(error.exit_code),
        message=error.message,
        checkpoint_step=checkpoint_step,
    )


def find(store: Store, layout: JobLayout, stage: Stage) -> StageResult | None:
    """Return the result of a finished stage of this job, or None if it has not finished."""
    data = store.get_bytes(layout.result(stage))
    return StageResult.model_validate_json(data) if data is not None else None


def read(context: Context, stage: Stage) -> StageResult:
    """Return the result of an earlier stage.

    Raises:
        SettingsError: that stage has not finished.
    """
    result = find(context.store, context.layout, stage)
    if result is None:
        raise SettingsError(
            f"{stage} has not finished for this job: {context.store.uri} has no {context.layout.result(stage)}; "
            f"run {stage} first, with the same plan and output"
        )
    return result


def kept(store: Store, layout: JobLayout, stage: Stage) -> StageResult:
    """Return the stored result of a finished stage, to be reported again.

    Raises:
        NoResultError: there is none, or it belongs to rows and a model that prepare has replaced since.
    """
    result = find(store, layout, stage)
    if result is None:
        raise NoResultError(f"{stage} left no result: {store.uri} has no {layout.result(stage)}; it has to run again")
    prepared_run = find(store, layout, "prepare")
    if prepared_run is not None and result.run_id != prepared_run.run_id:
        raise NoResultError(f"the result that {stage} left is of an earlier run; it has to run again")
    return result


def run_folder(context: Context) -> str:
    """Return the key of the folder of the run that prepare computed.

    Raises:
        SettingsError: prepare has not finished.
        GuardError: it finished without a run id.
    """
    run_id = read(context, "prepare").run_id
    if run_id is None:
        raise GuardError("prepare finished without a run id")
    return context.layout.run(run_id)


def read_prepared(context: Context) -> Prepared:
    """Return prepare's description of the data and the model.

    Raises:
        SettingsError: prepare has not finished.
        GuardError: it finished without a run id.
    """
    key = f"{run_folder(context)}/{prepared.DESCRIPTION}"
    data = context.store.get_bytes(key)
    if data is None:
        raise SettingsError(
            f"{context.store.uri} has no {key}: prepare's files were deleted; delete this FineTuneJob and create it "
            "again"
        )
    return Prepared.model_validate_json(data)


def write(store: Store, layout: JobLayout, result: StageResult) -> None:
    """Keep a finished stage's result for the next one."""
    store.put_bytes(layout.result(result.stage), result.model_dump_json(by_alias=True, exclude_none=True).encode())


def write_termination_message(result: StageResult) -> None:
    """Write the termination message to the file that FINETUNE_TERMINATION_LOG names, if it is set."""
    if path := os.environ.get("FINETUNE_TERMINATION_LOG"):
        try:
            Path(path).write_bytes(result.termination_message())
        except OSError as error:
            # The bucket and the exit code have the same information.
            sys.stderr.write(f"{path} was not written: {error.strerror}\n")
