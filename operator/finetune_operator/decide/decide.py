"""The whole behaviour of the operator for one FineTuneJob, as a pure function.

Everything follows from what is observed, so that a pass may be cut short anywhere and repeated. Two rules make that
safe: a Job is created only for an attempt that the written status asks for and that was not seen yet, under a name made
from it; and the status follows the Jobs that are seen, never the ones that were asked for.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api import endpoints
from finetune_api.plan import Plan
from finetune_api.spec import FineTuneJobSpec, Stage
from finetune_api.status import Failure, Snapshot, StageStatus
from finetune_operator import job_templates, names
from finetune_operator.clock import format_time, parse_time
from finetune_operator.decide import (
    admission_refusal,
    attempts,
    compute_edit,
    conditions,
    deadlines,
    diagnose,
    failures,
    gpu_time,
    job_and_pod,
    kueue_wait,
    planned_deletion,
    retry_generation,
    snapshot,
    stale_jobs,
    status,
    stuck_job,
    suspend,
    ttl_after_finished,
)
from finetune_operator.decide.child_results import record
from finetune_operator.decide.decision import (
    Action,
    CreateConfigMap,
    CreateJob,
    Decision,
    DeleteJob,
    EnsureService,
    KubernetesEvent,
    UpdateConfigMap,
)
from finetune_operator.decide.observation import Object, Observation
from finetune_operator.decide.pass_result import Transition
from finetune_operator.decide.poll_interval import look_again_seconds
from finetune_operator.job_defaults import Settings

ENDPOINT_NOT_ALLOWED = "EndpointNotAllowed"
_SOON = 1.0
_WAITING_SECONDS = 30.0
_ACTIVE: dict[Stage, str] = {"prepare": "Preparing", "train": "Training", "export": "Exporting"}


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
        return _accept(observation, observation.spec, now, settings)
    found = record(observation, observation.spec, now)
    this = Transition(observation, now, planned_deletion.forget(found.status, observation), found.events)
    if found.failure:
        return this.fail(found.failure)
    stage = status.current(this.status)
    if stage is None:
        return this.succeed()
    if stage.state == "Failed" and stage.last_failure:
        return this.fail(stage.last_failure, _end_jobs(observation))
    if suspend.applies(observation, observation.spec, stage):
        return suspend.hold(this, observation.spec, stage)
    too_long = deadlines.exceeded(this.status, stage.name, observation.spec, now)
    if too_long:
        return _give_up(this, stage, too_long)
    if stage.state == "Running":
        return _watch(this, stage, observation, observation.spec, settings)
    if this.status.stages != observation.status.stages:
        return this.go_on(*_next_start(stage, now), requeue_after=_SOON)
    return _start(this, stage, observation, observation.spec, settings)


def _finished(observation: Observation, now: datetime, settings: Settings) -> Decision:
    """It starts nothing, unless it failed and is to be opened again."""
    spec = observation.spec
    if spec is None or not retry_generation.is_wanted(observation.status, spec):
        return _keep(observation, spec, now)
    reopened = retry_generation.reopened(observation.status)
    stage = status.current(reopened)
    if stage is None or not conditions.is_true(reopened.conditions, "Accepted"):
        return _accept(replace(observation, status=reopened), spec, now, settings)
    this = Transition(observation, now, reopened, (retry_generation.event(stage),))
    if spec.suspend:
        return suspend.hold(this, spec, stage)
    return this.go_on(*_next_start(stage, now), requeue_after=_SOON, actions=_end_jobs(observation))


def _keep(observation: Observation, spec: FineTuneJobSpec | None, now: datetime) -> Decision:
    """It stays as it is until its time is up."""
    kept = Transition(observation, now, observation.status).keep(_end_jobs(observation))
    left = ttl_after_finished.seconds_left(observation, spec, now) if spec else None
    if spec is None or left is None:
        return kept
    if left or kept.status is not None:
        return replace(kept, requeue_after=left)
    return replace(kept, actions=ttl_after_finished.clean_up(observation, spec))


def _invalid(observation: Observation, now: datetime) -> Decision:
    message = f"The job's spec is not valid: {observation.spec_error}."
    this = Transition(observation, now, observation.status, accepted=False)
    if observation.status.snapshot is None:
        return this.fail(Failure(reason="InvalidSpec", message=message))
    # It was valid when it was accepted, and what was edited since can be edited back.
    return this.block("InvalidSpec", message)


def _accept(observation: Observation, spec: FineTuneJobSpec, now: datetime, settings: Settings) -> Decision:
    plan = snapshot.render_plan(observation.metadata, spec, settings)
    refusal = endpoints.refused(settings.defaults.policy, endpoints.of(plan))
    if refusal:
        this = Transition(observation, now, observation.status, accepted=False)
        return this.fail(Failure(reason=ENDPOINT_NOT_ALLOWED, message=refusal))
    accepted = observation.status.model_copy(
        update={
            "start_time": format_time(now),
            "snapshot": snapshot.take(plan.to_bytes(), settings),
            "stages": status.first_stages(),
        }
    )
    event = KubernetesEvent("Normal", "Accepted", "The job is accepted; its plan is fixed.")
    this = Transition(observation, now, accepted, (event,))
    if spec.suspend:
        return suspend.hold(this, spec, accepted.stages[0])
    return this.go_on("Accepted", "The job is accepted and about to start.", requeue_after=_SOON)


def _watch(
    this: Transition, stage: StageStatus, observation: Observation, spec: FineTuneJobSpec, settings: Settings
) -> Decision:
    """A Job is there: say how it is getting on."""
    actions: list[Action] = []
    if not observation.refusal:
        actions = [
            *stale_jobs.delete(observation),
            *_restore_plan(observation, spec, settings),
            *_publish_ca(observation, settings),
        ]
    left = deadlines.seconds_active(this.status, spec, this.now)
    wait = kueue_wait.waiting(observation, this.now)
    if wait:
        return this.go_on(
            kueue_wait.QUEUED, wait.why, waiting=True, event="Normal", requeue_after=wait.seconds, actions=actions
        )
    pods = [p for p in observation.pods if job_and_pod.is_pod_of(p, stage.name, stage.attempt)]
    jobs = [j for j in observation.jobs if j["metadata"]["name"] == stage.job_name]
    to_say = stuck_job.seconds_left(jobs[0], pods, this.now)
    if to_say is not None and to_say > 0:
        message = f"The {stage.name} pod has failed; waiting for Kubernetes to say so of its Job."
        return this.go_on(_ACTIVE[stage.name], message, requeue_after=to_say, actions=actions)
    if to_say is not None:
        return stuck_job.recreate(this, jobs[0], stage, actions)
    if any(map(job_and_pod.runs, pods)) and not job_and_pod.unstarted(jobs[0], pods):
        message = _running(stage)
        if compute_edit.is_later(jobs[0], spec, stage):
            this, message = compute_edit.told(this, message)
        return this.go_on(_ACTIVE[stage.name], message, requeue_after=left, actions=actions)
    found = diagnose.diagnose(pods, jobs, observation.events)
    late = deadlines.late(jobs[0], pods, found, stage.name, spec, this.now)
    if late:
        return _give_up(this, stage, late)
    if (found or job_and_pod.is_being_deleted(jobs[0])) and compute_edit.applies(this, jobs[0], spec, stage):
        return compute_edit.recreate(this, jobs[0], stage)
    since = this.now - parse_time(jobs[0]["metadata"]["creationTimestamp"])
    again = look_again_seconds(since)
    to_start = deadlines.seconds_to_start(jobs[0], pods, spec, this.now)
    again = min(seconds for seconds in (again, left, to_start) if seconds is not None)
    if found:
        return this.go_on(found.reason, found.message, waiting=True, requeue_after=again, actions=actions)
    return this.go_on(_ACTIVE[stage.name], _message(stage, jobs[0], pods), requeue_after=again, actions=actions)


def _message(stage: StageStatus, job: Object, pods: Sequence[Object]) -> str:
    """Say how a Job is getting on of which no pod runs, and nothing is known to be wrong; `pods` are of it."""
    number, unstarted = job_and_pod.completions(job), job_and_pod.unstarted(job, pods)
    if pods and not unstarted and not any(map(job_and_pod.is_being_deleted, pods)):
        # They have ended. Kubernetes will say how in a moment, which is worth a status; this is not.
        return _running(stage)
    if number > 1:
        return f"Waiting for {unstarted} of {number} {stage.name} pods to start."
    return f"Waiting for the {stage.name} pod to start."


def _running(stage: StageStatus) -> str:
    return f"{attempts.called(stage)} is running, attempt {stage.attempt + 1}."


def _give_up(this: Transition, stage: StageStatus, failure: Failure) -> Decision:
    """The stage failed though its Job may be live.

    Only the next pass ends that and the job: were the Job deleted before this is written, whoever continues would take
    it for one that somebody deleted, and start it again.
    """
    when = format_time(this.now)
    failed = stage.model_copy(update={"state": "Failed", "last_failure": failure, "completion_time": when})
    changed = deadlines.stop(status.with_stage(this.status, failed), when)
    changed = gpu_time.count(changed, stage, this.observation.pods, when)
    event = KubernetesEvent("Warning", "StageFailed", failure.message)
    given_up = replace(this, status=changed, events=(*this.events, event))
    return given_up.go_on(failure.reason, failure.message, requeue_after=_SOON)


def _end_jobs(observation: Observation) -> tuple[DeleteJob, ...]:
    """Nothing of a job that is finished may run."""
    return planned_deletion.delete(filter(job_and_pod.is_live_job, observation.jobs))


def _start(
    this: Transition, stage: StageStatus, observation: Observation, spec: FineTuneJobSpec, settings: Settings
) -> Decision:
    """No Job is there: create it, unless something forbids that."""
    wait = _wait_for_others(observation)
    if wait:
        ends = stale_jobs.delete(observation)
        return this.go_on("WaitingForPreviousRun", wait, waiting=True, requeue_after=_WAITING_SECONDS, actions=ends)
    left = (_not_before(stage) - this.now).total_seconds() if stage.completion_time and stage.attempt else 0
    if left > 0:
        return this.go_on(*_next_start(stage, this.now), requeue_after=left)
    accepted = this.status.snapshot
    assert accepted is not None  # decide accepts first
    fresh = status.untouched(this.status) and not _has_plan(observation, accepted)
    newer = snapshot.newer(accepted)
    if newer and not fresh:
        return this.block(snapshot.PLAN_NEWER, newer)
    older = snapshot.older_trainer(accepted, spec) if stage.name == "train" and not stage.report_only else None
    if older:
        return this.block(snapshot.TRAINER_OLDER, older)
    plan = _plan(observation, spec, accepted, settings)
    if isinstance(plan, Failure):
        if fresh:
            # The settings changed between acceptance and the first start: accept again under the new ones.
            return _accept(observation, spec, this.now, settings)
        return this.fail(plan)
    if observation.refusal:
        refusal = admission_refusal.wait(this, stage, spec, observation.refusal)
        return _give_up(this, stage, refusal) if isinstance(refusal, Failure) else refusal
    attempt = job_templates.Attempt(
        metadata=observation.metadata,
        spec=spec,
        plan=plan,
        snapshot=accepted,
        settings=settings,
        number=stage.attempt,
        avoid_nodes=attempts.unusable_nodes(observation.jobs, observation.pods, stage),
        scratch=this.status.scratch,
        report_only=bool(stage.report_only),
    )
    service = job_templates.service(stage.name, attempt)
    actions = [
        *_restore_plan(observation, spec, settings),
        *_publish_ca(observation, settings),
        *([EnsureService(service)] if service else []),
        CreateJob(job_templates.render(stage.name, attempt)),
    ]
    message = f"{attempts.called(stage)} is about to start, attempt {stage.attempt + 1}."
    return this.go_on(_ACTIVE[stage.name], message, actions=actions, requeue_after=_WAITING_SECONDS)


def _wait_for_others(observation: Observation) -> str | None:
    """Two runs under one name would write over each other's files, and hold two GPUs."""
    foreign = job_and_pod.live(observation.foreign_jobs, observation.foreign_pods)
    if foreign:
        return f"An earlier FineTuneJob of this name still ends; waiting for {foreign[0]}."
    own = job_and_pod.live(observation.jobs, observation.pods)
    return f"An earlier attempt still ends; waiting for {own[0]}." if own else None


def _next_start(stage: StageStatus, now: datetime) -> tuple[str, str]:
    """Reason and message while a stage is due."""
    if stage.last_failure and stage.completion_time and _not_before(stage) > now:
        when = format_time(_not_before(stage))
        return "RetryBackoff", f"{stage.name} starts again after {when}: {stage.last_failure.message}"[:4096]
    return _ACTIVE[stage.name], f"{attempts.called(stage)} is about to start, attempt {stage.attempt + 1}."


def _not_before(stage: StageStatus) -> datetime:
    assert stage.completion_time is not None  # set whenever an attempt ended
    return parse_time(stage.completion_time) + timedelta(seconds=failures.backoff_seconds(stage.counted_failures))


def _plan(observation: Observation, spec: FineTuneJobSpec, accepted: Snapshot, settings: Settings) -> Plan | Failure:
    """Return the accepted plan, from its ConfigMap or rendered again to the same bytes."""
    name = names.plan(observation.metadata, accepted.plan_sha256)
    config_map = job_and_pod.named(observation.config_maps, name)
    if config_map is None:
        config_map = _restored(observation, spec, accepted, settings)
    plan = snapshot.stored_plan(config_map, accepted)
    if plan is None:
        message = (
            f"The plan that was accepted is lost: the ConfigMap {name} was deleted or replaced; "
            "delete this FineTuneJob and create it again."
        )
        return Failure(reason="PlanLost", message=message)
    return plan


def _restore_plan(observation: Observation, spec: FineTuneJobSpec, settings: Settings) -> list[Action]:
    accepted = observation.status.snapshot
    if accepted is None or _has_plan(observation, accepted):
        return []
    body = _restored(observation, spec, accepted, settings)
    return [CreateConfigMap(body)] if snapshot.stored_plan(body, accepted) else []


def _restored(observation: Observation, spec: FineTuneJobSpec, accepted: Snapshot, settings: Settings) -> Object:
    """Return the plan's ConfigMap anew: that of a version with other names, or one rendered again to the same bytes."""
    stored = next((c for c in observation.config_maps if snapshot.stored_plan(c, accepted)), None)
    if stored is not None:
        return snapshot.plan_config_map(observation.metadata, stored["data"][snapshot.PLAN_KEY].encode())
    return snapshot.plan_config_map(
        observation.metadata, snapshot.render_plan(observation.metadata, spec, settings).to_bytes()
    )


def _has_plan(observation: Observation, accepted: Snapshot) -> bool:
    return (
        job_and_pod.named(observation.config_maps, names.plan(observation.metadata, accepted.plan_sha256)) is not None
    )


def _publish_ca(observation: Observation, settings: Settings) -> list[Action]:
    body = snapshot.ca_config_map(observation.metadata, settings)
    config_map = job_and_pod.named(observation.config_maps, body["metadata"]["name"])
    if config_map is None:
        return [CreateConfigMap(body)]
    if config_map.get("data") == body["data"]:
        return []
    version = config_map["metadata"]["resourceVersion"]
    return [UpdateConfigMap({**body, "metadata": {**body["metadata"], "resourceVersion": version}})]
