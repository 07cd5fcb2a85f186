"""What to do about a stage without a Job: one check per function, the first that applies decides; else it is created.

The order is the policy. Nothing is created beside pods that still run. A backoff is waited out before the plan is
looked at, and the plan is checked before the API server's refusal, which may be of a Job that must not be created.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from finetune_api.plan import Plan
from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import Failure, Snapshot, StageStatus
from finetune_operator import job_templates
from finetune_operator.decide import (
    acceptance,
    admission_refusal,
    attempts,
    config_maps,
    job_and_pod,
    retry_backoff,
    snapshot,
    spec_edit,
    stale_jobs,
    status,
)
from finetune_operator.decide.decision import CreateJob, Decision, EnsureService
from finetune_operator.decide.pass_result import Pass
from finetune_operator.decide.stage_failure import fail_stage
from finetune_operator.job_defaults import Settings

_NEXT_PASS_SECONDS = 30.0


@dataclass(frozen=True)
class PendingStage:
    """One pass over a stage without a Job."""

    this: Pass
    stage: StageStatus
    spec: FineTuneJobSpec
    settings: Settings

    @property
    def accepted(self) -> Snapshot:
        """What was accepted."""
        accepted = self.this.status.snapshot
        assert accepted is not None  # a job is accepted before its stages
        return accepted

    @property
    def is_fresh(self) -> bool:
        """Whether no container has started since the job was accepted, so that it may be accepted again."""
        return bool(self.this.status.spec_editable) or self.is_untouched

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was created since the job was accepted."""
        observation = self.this.observation
        return status.untouched(self.this.status) and not config_maps.has_plan(observation, self.accepted)

    @cached_property
    def plan(self) -> Plan | Failure:
        """The accepted plan, or why there is none."""
        return config_maps.accepted_plan(self.this.observation, self.spec, self.accepted, self.settings)


Check = Callable[[PendingStage], Decision | None]


def decide(this: Pass, stage: StageStatus, spec: FineTuneJobSpec, settings: Settings) -> Decision:
    """Return what to do about a stage without a Job."""
    found = PendingStage(this, stage, spec, settings)
    return next((decision for check in _CHECKS if (decision := check(found))), None) or create_job(found)


def wait_for_previous_run(found: PendingStage) -> Decision | None:
    """Two runs under one name would overwrite each other's files, and hold two GPUs."""
    observation = found.this.observation
    foreign = job_and_pod.live(observation.foreign_jobs, observation.foreign_pods)
    own = job_and_pod.live(observation.jobs, observation.pods)
    orphan = next((j for j in observation.foreign_jobs if stale_jobs.is_orphan(j) and job_and_pod.is_live_job(j)), None)
    if orphan:
        name = orphan["metadata"]["name"]
        message = (
            f"The Job {name} was left when a previous FineTuneJob of this name was deleted, and still runs. Wait for "
            f"its end, or delete it: kubectl delete job {name} -n {observation.metadata.namespace}"
        )
    elif foreign:
        message = f"A previous FineTuneJob of this name is still terminating; waiting for {foreign[0]}."
    elif own:
        message = f"The previous attempt is still terminating; waiting for {own[0]}."
    else:
        return None
    return found.this.in_progress(
        "WaitingForPreviousRun",
        message,
        waiting=True,
        requeue_after=_NEXT_PASS_SECONDS,
        actions=stale_jobs.delete(observation),
    )


def wait_for_backoff(found: PendingStage) -> Decision | None:
    """An attempt failed a moment ago, and the cause may need some time to go away."""
    left = retry_backoff.seconds_left(found.stage, found.this.now)
    if left <= 0:
        return None
    return found.this.in_progress(*retry_backoff.reason_and_message(found.stage, found.this.now), requeue_after=left)


def block_newer_plan(found: PendingStage) -> Decision | None:
    """A later version of the operator accepted the job: its pods may need what this version does not render."""
    newer = snapshot.newer(found.accepted)
    return found.this.block(snapshot.PLAN_NEWER, newer) if newer and not found.is_fresh else None


def block_older_trainer(found: PendingStage) -> Decision | None:
    """The accepted trainer image does not know how to train on several GPUs. Reading a result needs none."""
    if found.stage.name != "train" or found.stage.report_only:
        return None
    older = snapshot.older_trainer(found.accepted, found.spec)
    return found.this.block(snapshot.TRAINER_OLDER, older) if older else None


def accept_again(found: PendingStage) -> Decision | None:
    """The spec or the settings changed between acceptance and the first start: nothing depends on the old ones."""
    this = found.this
    corrected = spec_edit.is_corrected(this.status, this.observation, found.spec, found.settings)
    lost = found.is_untouched and isinstance(found.plan, Failure)
    if not corrected and not lost:
        return None
    return acceptance.accept(found.this.observation, found.spec, found.this.now, found.settings)


def fail_without_plan(found: PendingStage) -> Decision | None:
    """The plan is lost, and another one would make a different model."""
    return found.this.fail(found.plan) if isinstance(found.plan, Failure) else None


def wait_for_admission(found: PendingStage) -> Decision | None:
    """The API server refused to create the Job, or what it needs, in this pass; it may accept it later."""
    if not found.this.observation.refusal:
        return None
    refusal = admission_refusal.wait(found.this, found.stage, found.spec, found.this.observation.refusal)
    return fail_stage(found.this, found.stage, refusal) if isinstance(refusal, Failure) else refusal


_CHECKS: tuple[Check, ...] = (
    wait_for_previous_run,
    wait_for_backoff,
    block_newer_plan,
    block_older_trainer,
    accept_again,
    fail_without_plan,
    wait_for_admission,
)


def create_job(found: PendingStage) -> Decision:
    """Create the Job of the next attempt, and before it what its pods need."""
    observation, stage = found.this.observation, found.stage
    assert isinstance(found.plan, Plan)  # checked before
    attempt = job_templates.Attempt(
        metadata=observation.metadata,
        spec=found.spec,
        plan=found.plan,
        snapshot=found.accepted,
        settings=found.settings,
        number=stage.attempt,
        avoid_nodes=attempts.unusable_nodes(observation.jobs, observation.pods, stage),
        scratch=found.this.status.scratch,
        parameters=found.this.status.model.parameters if found.this.status.model else None,
        report_only=bool(stage.report_only),
    )
    service = job_templates.service(stage.name, attempt)
    actions = [
        *config_maps.upkeep(observation, found.spec, found.settings),
        *([EnsureService(service)] if service else []),
        CreateJob(job_templates.render(stage.name, attempt)),
    ]
    return found.this.in_progress(
        status.ACTIVE_PHASES[stage.name],
        attempts.about_to_start(stage),
        actions=actions,
        requeue_after=_NEXT_PASS_SECONDS,
    )
