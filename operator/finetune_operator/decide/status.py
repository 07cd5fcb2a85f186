"""How the status changes: every function returns a new one."""

from typing import Any, TypeVar

from finetune_api.base import Model
from finetune_api.job import ObjectMeta
from finetune_api.layout import JobLayout, join_uri
from finetune_api.result import StageResult
from finetune_api.spec import STAGES, FineTuneJobSpec, Stage
from finetune_api.status import Artifact, FineTuneJobStatus, Phase, StageStatus

ACTIVE_PHASES: dict[Stage, Phase] = {"prepare": "Preparing", "train": "Training", "export": "Exporting"}
_M = TypeVar("_M", bound=Model)


def first_stages() -> list[StageStatus]:
    """Return the stages of a job that has started nothing."""
    return [StageStatus(name=stage, state="Pending", attempt=0) for stage in STAGES]


def current(status: FineTuneJobStatus) -> StageStatus | None:
    """Return the first stage that is still to be done or failed, or None if there is none."""
    return next((s for s in status.stages if s.state not in ("Succeeded", "Skipped")), None)


def untouched(status: FineTuneJobStatus) -> bool:
    """Whether no Job was ever seen."""
    return [s.model_copy(update={"refused_since": None}) for s in status.stages] == first_stages()


def restarted(found: FineTuneJobStatus, *, same_plan: bool) -> FineTuneJobStatus:
    """Return the status of a job that begins again under another snapshot: nothing of the former one counts.

    The attempts' numbers increase, because the names of earlier Jobs are not used again. If no Job was seen, one may
    still arrive late: only with `same_plan` it would not be noticed by its plan.
    """
    stages = []
    for fresh in first_stages():
        old = next((s for s in found.stages if s.name == fresh.name), fresh)
        unseen = old.model_copy(update={"refused_since": None}) == fresh
        number = 0 if unseen and not same_plan else old.attempt + 1
        stages.append(fresh.model_copy(update={"attempt": number, "first_attempt": number}))
    update: dict[str, Any] = dict.fromkeys(
        ("failure", "completion_time", "run_id", "output_uri", "logs_uri", "reused_from", "dataset", "model"), None
    )
    update |= dict.fromkeys(("memory", "scratch", "effective", "evaluation"), None)
    return found.model_copy(update={**update, "artifacts": [], "stages": stages})


def trained(status: FineTuneJobStatus) -> bool:
    """Whether a container of train ever ran."""
    train = next((s for s in status.stages if s.name == "train"), None)
    ran = status.gpu_seconds is not None or status.gpu_since is not None
    return ran or (train is not None and (train.state == "Succeeded" or train.checkpoint_step is not None))


def with_stage(status: FineTuneJobStatus, stage: StageStatus) -> FineTuneJobStatus:
    """Return the status with this stage in place of the one of that name."""
    return status.model_copy(update={"stages": [stage if s.name == stage.name else s for s in status.stages]})


def next_attempt(stage: StageStatus) -> StageStatus:
    """Return the stage as it is before its next attempt, which needs no backoff."""
    again = {"state": "Pending", "attempt": stage.attempt + 1, "start_time": None, "completion_time": None}
    return stage.model_copy(update={**again, "planned_deletion": None})


def without_the_rest(status: FineTuneJobStatus) -> FineTuneJobStatus:
    """Skip the stages that have not started."""
    stages = [s.model_copy(update={"state": "Skipped"}) if s.state == "Pending" else s for s in status.stages]
    return status.model_copy(update={"stages": stages})


def phase(status: FineTuneJobStatus, *, waiting: bool) -> Phase:
    """Return the phase of an unfinished job; `waiting` if something keeps its pod from running."""
    stage = current(status)
    if waiting or stage is None or untouched(status):
        return "Pending"
    return ACTIVE_PHASES[stage.name]


def with_result(
    status: FineTuneJobStatus, metadata: ObjectMeta, spec: FineTuneJobSpec, result: StageResult
) -> FineTuneJobStatus:
    """Return the status with what a stage reported; what it left out stays as it was."""
    layout = JobLayout(metadata.namespace, metadata.name, metadata.uid)
    root = spec.output.s3.uri
    run_id = result.run_id or status.run_id
    update: dict[str, Any] = {
        "run_id": run_id,
        "output_uri": join_uri(root, layout.run(run_id)) if run_id else None,
        "dataset": _merged(status.dataset, result.dataset),
        "model": _merged(status.model, result.model),
        "memory": _merged(status.memory, result.memory),
        "scratch": _merged(status.scratch, result.scratch),
        "effective": _merged(status.effective, result.effective),
        "evaluation": _merged(status.evaluation, result.evaluation),
        "artifacts": _artifacts(status.artifacts, result.artifacts),
    }
    if result.reused_from:
        update["output_uri"] = update["reused_from"] = join_uri(root, result.reused_from)
    if result.log:
        update["logs_uri"] = join_uri(root, result.log.rpartition("/")[0])
    return status.model_copy(update=update)


def _merged(old: _M | None, new: _M | None) -> _M | None:
    if old is None or new is None:
        return new or old
    changes = {name: getattr(new, name) for name in new.model_fields_set if getattr(new, name) is not None}
    return old.model_copy(update=changes)


def _artifacts(old: list[Artifact], new: list[Artifact]) -> list[Artifact]:
    replaced = {a.name for a in new}
    return [*(a for a in old if a.name not in replaced), *new]


def body(status: FineTuneJobStatus) -> dict[str, Any]:
    """Return what the operator applies: everything but progress, without empty lists."""
    return {k: v for k, v in status.to_json().items() if v != [] and k != "progress"}
