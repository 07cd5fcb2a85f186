"""Reads from the Jobs and pods what became of the stages, into the status. Nothing is started here."""

from dataclasses import dataclass, replace
from datetime import datetime

from finetune_api.exit_codes import ExitCode
from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import Failure, FineTuneJobStatus, StageStatus
from finetune_operator import names
from finetune_operator.clock import format_time
from finetune_operator.decide import (
    attempts,
    compute_edit,
    deadlines,
    failures,
    gpu_time,
    job_and_pod,
    planned_deletion,
    result_warnings,
    stale_jobs,
    status,
    stuck_job,
)
from finetune_operator.decide.attempts import Ended
from finetune_operator.decide.decision import KubernetesEvent
from finetune_operator.decide.evaluation_gate import missed
from finetune_operator.decide.failures import Verdict
from finetune_operator.decide.observation import Object, Observation

_NODES_KEPT = 64


@dataclass(frozen=True)
class ChildResults:
    """The status after what the Jobs and pods show, and what happened."""

    status: FineTuneJobStatus
    events: tuple[KubernetesEvent, ...] = ()
    # Set if the job cannot continue.
    failure: Failure | None = None


def read(observation: Observation, spec: FineTuneJobSpec, now: datetime) -> ChildResults:
    """Follow the Jobs as far as they got: an operator that was away catches up in one pass."""
    result = ChildResults(observation.status)
    while (stage := status.current(result.status)) is not None and result.failure is None:
        following = _step(result, stage, observation, spec, now)
        if following is None:
            break
        result = following
    return result


def _step(
    result: ChildResults, stage: StageStatus, observation: Observation, spec: FineTuneJobSpec, now: datetime
) -> ChildResults | None:
    """Return the results with the next change of the present stage, or None if nothing is new."""
    job = job_and_pod.named(observation.jobs, names.job(observation.metadata, stage.name, stage.attempt))
    if stage.state == "Pending":
        if job and stale_jobs.is_of_another_plan(job, result.status.snapshot):
            # It has the name of the attempt that is due.
            return replace(result, status=status.with_stage(result.status, status.next_attempt(stage)))
        return _started(result, stage, job, now) if job else None
    if stage.state == "Failed":
        # Its Job is being deleted, and shows nothing more.
        return None
    if job is None:
        # It was seen before, so it was deleted since.
        when = format_time(now)
        counted = gpu_time.count(result.status, stage, observation.pods, when)
        return _deleted(replace(result, status=counted), stage, observation, spec, when)
    followed = replace(result, status=deadlines.follow(result.status, job, now))
    ended = attempts.ended(job, observation.pods, stage.name, stage.attempt)
    if ended is None:
        followed = replace(followed, status=gpu_time.follow(followed.status, stage, job, observation.pods, now))
        return followed if followed != result else None
    return _ended(followed, stage, ended, observation, spec)


def _started(result: ChildResults, stage: StageStatus, job: Object, now: datetime) -> ChildResults:
    running = stage.model_copy(
        update={
            "state": "Running",
            "refused_since": None,
            "job_name": job["metadata"]["name"],
            "start_time": job["metadata"]["creationTimestamp"],
            "completion_time": None,
        }
    )
    event = KubernetesEvent("Normal", "StageStarted", f"{attempts.called(stage)} started, attempt {stage.attempt + 1}.")
    noted = _with_stage(result, running, event)
    return replace(noted, status=deadlines.follow(noted.status, job, now))


def _ended(
    result: ChildResults, stage: StageStatus, ended: Ended, observation: Observation, spec: FineTuneJobSpec
) -> ChildResults:
    if ended.result:
        merged = status.with_result(result.status, observation.metadata, spec, ended.result)
        result = ChildResults(merged, (*result.events, *result_warnings.events(result.status, merged)))
    result = replace(result, status=gpu_time.count(result.status, stage, observation.pods, ended.completion_time))
    if ended.succeeded and ended.result and ended.result.exit_code == 0:
        done = stage.model_copy(update={"state": "Succeeded", "completion_time": ended.completion_time})
        result = _with_stage(result, done, KubernetesEvent("Normal", "StageSucceeded", f"{stage.name} succeeded."))
        if ended.result.reused_from:
            result = replace(result, status=status.without_the_rest(result.status))
        # An identical run counts only if it passes this job's gate; its result may have no verdict.
        judged = stage.name == "train" or (ended.result.reused_from and ended.result.evaluation)
        return _gated(result, spec) if judged else result
    edited = compute_edit.is_later_than_failure(observation.jobs, spec, stage)
    verdict = failures.judge(ended, stage, spec.retries.maximum, edited=edited)
    if ended.checkpoint_step is not None:
        step = max(ended.checkpoint_step, stage.checkpoint_step or 0)
        stage = stage.model_copy(update={"checkpoint_step": step})
    if ended.exit_code == ExitCode.GPU_UNUSABLE and ended.node:
        # That pod may be gone in the next pass: when the other pods end, it is deleted.
        known = [node for node in stage.unusable_nodes or [] if node != ended.node]
        stage = stage.model_copy(update={"unusable_nodes": [*known, ended.node][-_NODES_KEPT:]})
    if ended.deleted:
        return _deleted(result, stage, observation, spec, ended.completion_time)
    return _failed(result, stage, verdict, ended.completion_time)


def _deleted(
    result: ChildResults, stage: StageStatus, observation: Observation, spec: FineTuneJobSpec, completion_time: str
) -> ChildResults:
    """Take in that the Job was deleted. If the operator did that, it is no failure, and needs no backoff."""
    reason = planned_deletion.explanation(observation, spec, stage)
    if reason is None:
        return _failed(result, stage, failures.job_deleted(stage), completion_time)
    if reason == planned_deletion.JOB_UNDECIDED:
        return _failed(result, stage, stuck_job.lost(stage), completion_time)
    changed = status.with_stage(result.status, status.next_attempt(stage))
    return replace(result, status=deadlines.stop(changed, completion_time))


def _gated(result: ChildResults, spec: FineTuneJobSpec) -> ChildResults:
    """Apply the evaluation gate to the result of a stage that succeeded."""
    failure = missed(spec.evaluation.gate, result.status.evaluation)
    if failure is None or spec.evaluation.gate is None:
        return result
    if spec.evaluation.gate.on_miss == "Warn":
        event = KubernetesEvent("Warning", failure.reason, failure.message)
        return replace(result, events=(*result.events, event))
    [train] = (s for s in result.status.stages if s.name == "train")
    failed = train.model_copy(update={"state": "Failed", "last_failure": failure})
    return replace(result, status=status.with_stage(result.status, failed), failure=failure)


def _failed(result: ChildResults, stage: StageStatus, verdict: Verdict, completion_time: str) -> ChildResults:
    failed = stage.model_copy(
        update={
            "counted_failures": stage.counted_failures + (1 if verdict.counted else 0),
            "completion_time": completion_time,
            "last_failure": verdict.failure,
            "report_only": verdict.report_only or None,
        }
    )
    message = verdict.failure.message
    if verdict.permanent:
        failed = failed.model_copy(update={"state": "Failed"})
        event = KubernetesEvent("Warning", "StageFailed", message)
        return replace(_with_stage(result, failed, event), failure=verdict.failure)
    again = status.next_attempt(failed).model_copy(update={"completion_time": completion_time})
    event = KubernetesEvent("Warning", "StageRetrying", f"{verdict.failure.reason}: {message}")
    return _with_stage(result, again, event)


def _with_stage(result: ChildResults, stage: StageStatus, event: KubernetesEvent) -> ChildResults:
    noted = status.with_stage(result.status, stage)
    if stage.completion_time:
        noted = deadlines.stop(noted, stage.completion_time)
    return replace(result, status=noted, events=(*result.events, event))
