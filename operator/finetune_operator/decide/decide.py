"""The whole behavior of the operator for one FineTuneJob, as a pure function.

Everything follows from what is observed, so a pass may stop anywhere and be repeated. Two rules make that safe. A Job
is created only for an attempt that the written status has and that was not seen yet, under a name made from it.
And the status follows the Jobs that are seen, never the ones that were requested.
"""

from dataclasses import replace
from datetime import datetime

from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import Failure
from finetune_operator.decide import (
    acceptance,
    child_results,
    conditions,
    deadlines,
    job_and_pod,
    pending_stage,
    planned_deletion,
    retry_backoff,
    retry_generation,
    running_stage,
    spec_edit,
    status,
    suspend,
    ttl_after_finished,
)
from finetune_operator.decide.decision import Decision, DeleteJob
from finetune_operator.decide.observation import Observation
from finetune_operator.decide.pass_result import Pass
from finetune_operator.decide.stage_failure import fail_stage
from finetune_operator.job_defaults import Settings

_NEXT_PASS_SECONDS = 1.0


def decide(observation: Observation, now: datetime, settings: Settings) -> Decision:
    """Return what to do next. `now` is aware, in UTC."""
    if observation.metadata.deletion_timestamp:
        # The garbage collector deletes the children; a status would be lost.
        return Decision()
    if conditions.is_true(observation.status.conditions, "Finished"):
        return _finished(observation, now, settings)
    if observation.spec is None:
        return _invalid(observation, now)
    if observation.status.snapshot is None:
        return acceptance.accept(observation, observation.spec, now, settings)
    return _unfinished(observation, observation.spec, now, settings)


def _unfinished(observation: Observation, spec: FineTuneJobSpec, now: datetime, settings: Settings) -> Decision:
    """Take in what the Jobs and pods show, then decide about the first stage that is not done."""
    spec = spec_edit.accepted_spec(observation, spec)
    found = child_results.read(observation, spec, now)
    followed = spec_edit.follow(planned_deletion.carry_over(found.status, observation), observation)
    this = Pass(observation, now, followed, found.events)
    if found.failure:
        return this.fail(found.failure)
    stage = status.current(this.status)
    if stage is None:
        return this.succeed()
    if stage.state == "Failed" and stage.last_failure:
        return this.fail(stage.last_failure, _end_jobs(observation))
    if suspend.applies(observation, spec, stage):
        return suspend.hold(this, spec, stage)
    exceeded = deadlines.exceeded(this.status, stage.name, spec, now)
    if exceeded:
        return fail_stage(this, stage, exceeded)
    if stage.state == "Running":
        return running_stage.decide(this, stage, spec, settings)
    if this.status.stages != observation.status.stages:
        # A Job is created only for an attempt that the written status has.
        return this.in_progress(*retry_backoff.reason_and_message(stage, now), requeue_after=_NEXT_PASS_SECONDS)
    return pending_stage.decide(this, stage, spec, settings)


def _finished(observation: Observation, now: datetime, settings: Settings) -> Decision:
    """Start nothing, unless the job failed and `spec.retryGeneration` was raised since."""
    spec = observation.spec
    if spec is None or not retry_generation.is_wanted(observation.status, spec):
        return _keep(observation, spec, now)
    reopened = retry_generation.reopened(observation.status)
    stage = status.current(reopened)
    if stage is None or not conditions.is_true(reopened.conditions, "Accepted"):
        return acceptance.accept(observation, spec, now, settings)
    if spec_edit.is_corrected(observation.status, observation, spec, settings):
        first = retry_generation.event(reopened.stages[0])
        return acceptance.accept(observation, spec, now, settings, events=(first,))
    this = Pass(observation, now, reopened, (retry_generation.event(stage),))
    if spec.suspend:
        return suspend.hold(this, spec, stage)
    reason, message = retry_backoff.reason_and_message(stage, now)
    return this.in_progress(reason, message, requeue_after=_NEXT_PASS_SECONDS, actions=_end_jobs(observation))


def _keep(observation: Observation, spec: FineTuneJobSpec | None, now: datetime) -> Decision:
    """Keep a finished job as it is until its TTL is over."""
    kept = Pass(observation, now, observation.status).keep(_end_jobs(observation))
    left = ttl_after_finished.seconds_left(observation, spec, now) if spec else None
    if spec is None or left is None:
        return kept
    if left or kept.status is not None:
        return replace(kept, requeue_after=left)
    return replace(kept, actions=ttl_after_finished.clean_up(observation, spec))


def _invalid(observation: Observation, now: datetime) -> Decision:
    message = f"The job's spec is not valid: {observation.spec_error}."
    this = Pass(observation, now, observation.status, accepted=False)
    if observation.status.snapshot is None:
        return this.fail(Failure(reason="InvalidSpec", message=message))
    # It was valid when it was accepted, and an edit since can be undone.
    return this.block("InvalidSpec", message)


def _end_jobs(observation: Observation) -> tuple[DeleteJob, ...]:
    """Return the deletions of all live Jobs: nothing of a finished job may run."""
    return planned_deletion.delete(filter(job_and_pod.is_live_job, observation.jobs))
