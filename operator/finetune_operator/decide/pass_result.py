"""How a pass ends: the status with its conditions, and the events that report what changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from finetune_api.status import Failure, FineTuneJobStatus
from finetune_operator.clock import format_time
from finetune_operator.decide import conditions, result_warnings, snapshot, status
from finetune_operator.decide.conditions import State
from finetune_operator.decide.decision import Action, Decision, KubernetesEvent
from finetune_operator.decide.evaluation_gate import evaluated
from finetune_operator.decide.observation import Observation
from finetune_operator.decide.remedies import RECREATE, with_way_to_edit

REUSED = "ReusedArtifacts"
SUSPENDED = "Suspended"


@dataclass(frozen=True)
class Pass:
    """One pass over one job. Each method is one way to end it."""

    observation: Observation
    now: datetime
    # With the changes of this pass.
    status: FineTuneJobStatus
    events: tuple[KubernetesEvent, ...] = ()
    accepted: bool = True

    def in_progress(
        self,
        reason: str,
        message: str,
        *,
        waiting: bool = False,
        event: Literal["Normal", "Warning"] = "Warning",
        requeue_after: float | None = None,
        actions: Sequence[Action] = (),
    ) -> Decision:
        """The job is not finished.

        `waiting` if something that the user should know keeps its pod from running; an `event` of that type reports it.
        """
        events = self.events
        if self._was_suspended():
            events = (KubernetesEvent("Normal", "Resumed", "The job is resumed."), *events)
        if waiting and self._reason() != reason:
            events = (*events, KubernetesEvent(event, reason, message))
        phase = status.phase(self.status, waiting=waiting)
        return self._decision("unfinished", reason, message, {"phase": phase}, events, requeue_after, actions)

    def suspend(self, message: str, *, requeue_after: float | None = None, actions: Sequence[Action] = ()) -> Decision:
        """The job is suspended until its user resumes it."""
        events = self.events
        if not self._was_suspended():
            events = (*events, KubernetesEvent("Normal", SUSPENDED, message))
        return self._decision("suspended", SUSPENDED, message, {"phase": "Suspended"}, events, requeue_after, actions)

    def block(self, reason: str, message: str) -> Decision:
        """The job cannot continue until its spec is edited. Pods that run are left alone."""
        events = self.events
        if self._reason() != reason:
            events = (*events, KubernetesEvent("Warning", reason, message))
        return self._decision("blocked", reason, message, {}, events)

    def fail(self, failure: Failure, actions: Sequence[Action] = ()) -> Decision:
        """The job failed."""
        trained = status.trained(self.status)
        failure = with_way_to_edit(failure, trained=trained)
        event = KubernetesEvent("Warning", "Failed", failure.message)
        update: dict[str, Any] = {"phase": "Failed", "failure": failure, "completion_time": format_time(self.now)}
        update["start_time"] = self.status.start_time or format_time(self.now)
        # What has not trained may be corrected and reopened.
        update["spec_editable"] = None if trained else True
        return self._decision("failed", failure.reason, failure.message, update, (*self.events, event), None, actions)

    def succeed(self) -> Decision:
        """The job succeeded."""
        reason, message = "Succeeded", f"The model is in {self.status.output_uri}."
        if self.status.reused_from:
            reason = REUSED
            message = (
                f"The model is in {self.status.reused_from}: an identical run stored it there, so nothing was trained. "
                f"To train anyway, set output.reuse to Never. {RECREATE}"
            )
        event = KubernetesEvent("Normal", reason, message)
        update = {"phase": "Succeeded", "completion_time": format_time(self.now)}
        message = f"{message}{result_warnings.sentences(self.status)}"
        return self._decision("succeeded", reason, message, update, (*self.events, event))

    def keep(self, actions: Sequence[Action] = ()) -> Decision:
        """The job was finished before: only `observedGeneration` follows the present spec."""
        generation = self.observation.metadata.generation
        seen = [c.model_copy(update={"observed_generation": generation}) for c in self.status.conditions]
        return self._changed(
            self.status.model_copy(update={"observed_generation": generation, "conditions": seen}), (), None, actions
        )

    def _was_suspended(self) -> bool:
        return conditions.is_true(self.observation.status.conditions, "Suspended")

    def _reason(self) -> str | None:
        return conditions.reason(self.observation.status.conditions)

    def _decision(
        self,
        state: State,
        reason: str,
        message: str,
        update: dict[str, Any],
        events: tuple[KubernetesEvent, ...],
        requeue_after: float | None = None,
        actions: Sequence[Action] = (),
    ) -> Decision:
        generation = self.observation.metadata.generation
        spec, changed = self.observation.spec, self.status.model_copy(update=update)
        refused_edit = snapshot.refused_edit(spec, changed) if spec else None
        if refused_edit and not any(c.type == "SpecApplied" for c in self.observation.status.conditions):
            events = (*events, KubernetesEvent("Warning", conditions.EDITED_TOO_LATE, refused_edit))
        built = conditions.build(
            self.observation.status.conditions,
            state,
            reason,
            message,
            accepted=self.accepted,
            evaluated=evaluated(self.status.evaluation),
            refused_edit=refused_edit,
            now=self.now,
            generation=generation,
        )
        wanted = spec.retry_generation if spec else self.status.retry_generation
        written = {
            "stage": stage.name if (stage := status.current(changed)) else None,
            "observed_generation": generation,
            "conditions": built,
            # Raising it while the job is not finished has no effect.
            "retry_generation": max(wanted, self.status.retry_generation),
        }
        return self._changed(changed.model_copy(update=written), events, requeue_after, actions)

    def _changed(
        self,
        new: FineTuneJobStatus,
        events: tuple[KubernetesEvent, ...],
        requeue_after: float | None,
        actions: Sequence[Action],
    ) -> Decision:
        body = status.body(new)
        if body == status.body(self.observation.status):
            return Decision(actions=tuple(actions), requeue_after=requeue_after)
        return Decision(actions=tuple(actions), status=body, events=events, requeue_after=requeue_after)
