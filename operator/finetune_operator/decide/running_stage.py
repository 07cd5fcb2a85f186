"""What to do about a stage that has its Job: one check per function, the first that applies decides.

The order is the policy. A queue explains everything else. How the pods ended comes before whether they run, and a pod
that runs has met its deadline. The deadline comes before an edit of `spec.compute`, which would give a stage that waits
another Job, and with it more time. A correction of the job comes first: nothing has begun that could get more time.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property

from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import StageStatus
from finetune_operator.clock import parse_time
from finetune_operator.decide import (
    attempts,
    compute_edit,
    config_maps,
    deadlines,
    diagnose,
    job_and_pod,
    kueue_wait,
    spec_edit,
    stale_jobs,
    status,
    stuck_job,
)
from finetune_operator.decide.decision import Action, Decision
from finetune_operator.decide.diagnose import Diagnosis
from finetune_operator.decide.observation import Object
from finetune_operator.decide.pass_result import Pass
from finetune_operator.decide.poll_interval import poll_interval_seconds
from finetune_operator.decide.stage_failure import fail_stage
from finetune_operator.job_defaults import Settings


@dataclass(frozen=True)
class RunningStage:
    """One pass over a stage that has its Job."""

    this: Pass
    stage: StageStatus
    spec: FineTuneJobSpec
    settings: Settings

    @cached_property
    def job(self) -> Object:
        """The Job of the present attempt."""
        found = job_and_pod.named(self.this.observation.jobs, self.stage.job_name or "")
        assert found is not None  # a running stage without its Job has ended
        return found

    @cached_property
    def pods(self) -> list[Object]:
        """The pods of the present attempt."""
        stage = self.stage
        return [p for p in self.this.observation.pods if job_and_pod.is_pod_of(p, stage.name, stage.attempt)]

    @cached_property
    def diagnosis(self) -> Diagnosis | None:
        """Why a pod does not start, if that is known."""
        return diagnose.diagnose(self.pods, [self.job], self.this.observation.events)

    @property
    def upkeep(self) -> tuple[Action, ...]:
        """What the job needs besides the Job; nothing in a pass in which the API server refused a create."""
        observation = self.this.observation
        if observation.refusal:
            return ()
        stale = (*stale_jobs.delete(observation), *stale_jobs.delete_orphans(observation))
        return (*stale, *config_maps.upkeep(observation, self.spec, self.settings))

    @property
    def seconds_active(self) -> float | None:
        """How long the job may still be active; None without a limit."""
        return deadlines.seconds_active(self.this.status, self.spec, self.this.now)

    @property
    def seconds_to_next_poll(self) -> float:
        """How soon a Job whose pods have not started is looked at again, at the latest at the next deadline."""
        age: timedelta = self.this.now - parse_time(self.job["metadata"]["creationTimestamp"])
        to_start = deadlines.seconds_to_start(self.job, self.pods, self.spec, self.this.now)
        limits = (poll_interval_seconds(age), self.seconds_active, to_start)
        return min(seconds for seconds in limits if seconds is not None)

    def in_progress(self, message: str, requeue_after: float | None) -> Decision:
        """Return the decision for a stage that makes progress by itself."""
        phase = status.ACTIVE_PHASES[self.stage.name]
        return self.this.in_progress(phase, message, requeue_after=requeue_after, actions=self.upkeep)


Check = Callable[[RunningStage], Decision | None]


def decide(this: Pass, stage: StageStatus, spec: FineTuneJobSpec, settings: Settings) -> Decision:
    """Return what to do about a stage that has its Job."""
    found = RunningStage(this, stage, spec, settings)
    return next((decision for check in _CHECKS if (decision := check(found))), None) or wait_for_pods(found)


def start_again_after_correction(found: RunningStage) -> Decision | None:
    """No container has started, and the job would not be accepted now as it was."""
    can_start = found.diagnosis is None
    if not spec_edit.applies(found.this, found.job, found.spec, found.stage, found.settings, can_start=can_start):
        return None
    return spec_edit.delete_waiting(found.this, found.job, found.stage)


def wait_in_queue(found: RunningStage) -> Decision | None:
    """Kueue holds the Job, so that it has no pods: there is nothing else to say about it."""
    wait = kueue_wait.waiting(found.this.observation, found.this.now)
    if wait is None:
        return None
    return found.this.in_progress(
        kueue_wait.QUEUED, wait.why, waiting=True, event="Normal", requeue_after=wait.seconds, actions=found.upkeep
    )


def wait_for_job_controller(found: RunningStage) -> Decision | None:
    """A pod failed and none runs: the Job controller needs a moment to mark the Job Failed."""
    left = stuck_job.seconds_left(found.job, found.pods, found.this.now)
    if left is None or left <= 0:
        return None
    message = f"The {found.stage.name} pod failed; waiting for the Job controller to mark the Job Failed."
    return found.in_progress(message, left)


def recreate_stuck_job(found: RunningStage) -> Decision | None:
    """The Job controller did not mark the Job Failed in time, and never will."""
    left = stuck_job.seconds_left(found.job, found.pods, found.this.now)
    return None if left is None else stuck_job.recreate(found.this, found.job, found.stage, found.upkeep)


def let_pods_run(found: RunningStage) -> Decision | None:
    """Pods that run are left alone, whatever was edited: the next attempt gets the edit."""
    if not any(map(job_and_pod.runs, found.pods)) or job_and_pod.unstarted(found.job, found.pods):
        return None
    message = attempts.is_running(found.stage)
    if compute_edit.is_later(found.job, found.spec, found.stage):
        this, message = compute_edit.announce(found.this, message)
        found = replace(found, this=this)
    return found.in_progress(message, found.seconds_active)


def fail_late_start(found: RunningStage) -> Decision | None:
    """The pods did not start in time; the failure says why, if that is known."""
    late = deadlines.late(found.job, found.pods, found.diagnosis, found.stage.name, found.spec, found.this.now)
    return fail_stage(found.this, found.stage, late) if late else None


def recreate_after_edit(found: RunningStage) -> Decision | None:
    """A pod that cannot start is recreated if `spec.compute` was edited, since the edit may be the remedy."""
    if not found.diagnosis and not job_and_pod.is_being_deleted(found.job):
        # It may start any moment.
        return None
    if not compute_edit.applies(found.this, found.job, found.spec, found.stage):
        return None
    return compute_edit.recreate(found.this, found.job, found.stage)


def report_diagnosis(found: RunningStage) -> Decision | None:
    """Something that the user can change keeps a pod from starting."""
    why = found.diagnosis
    if why is None:
        return None
    message = why.message
    if why.reason in diagnose.NAMED_BY_SPEC and found.this.status.spec_editable:
        message = f"{message} If the name is wrong, correct it in the spec: no container has started yet."
    return found.this.in_progress(
        why.reason, message, waiting=True, requeue_after=found.seconds_to_next_poll, actions=found.upkeep
    )


def wait_for_pods(found: RunningStage) -> Decision:
    """Nothing is known to be wrong: the pods are about to start, or have just ended."""
    stage, pods = found.stage, found.pods
    number, unstarted = job_and_pod.completions(found.job), job_and_pod.unstarted(found.job, pods)
    message = f"Waiting for the {stage.name} pod to start."
    if pods and not unstarted and not any(map(job_and_pod.is_being_deleted, pods)):
        # They have ended. The Job controller will write how in a moment; that is worth a new status, this is not.
        message = attempts.is_running(stage)
    elif number > 1:
        message = f"Waiting for {unstarted} of {number} {stage.name} pods to start."
    return found.in_progress(message, found.seconds_to_next_poll)


_CHECKS: tuple[Check, ...] = (
    start_again_after_correction,
    wait_in_queue,
    wait_for_job_controller,
    recreate_stuck_job,
    let_pods_run,
    fail_late_start,
    recreate_after_edit,
    report_diagnosis,
)
