"""How a pass ends: the status with its conditions, and the events of what changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from finetune_api.status import Failure, FineTuneJobStatus
from finetune_operator.clock import format_time
from finetune_operator.decide import conditions, status
from finetune_operator.decide.conditions import State
from finetune_operator.decide.decision import Action, Decision, KubernetesEvent
from finetune_operator.decide.evaluation_gate import evaluated
from finetune_operator.decide.observation import Observation

REUSED = "ReusedArtifacts"
SUSPENDED = "Suspended"


@dataclass(frozen=True)
class Transition:
    """One pass over one job. Each method is one way in which it can end."""

    observation: Observation
    now: datetime
    # As far as this pass changed it.
    status: FineTuneJobStatus
    events: tuple[KubernetesEvent, ...] = ()
    accepted: bool = True

    def go_on(
        self,
        reason: str,
        message: str,
        *,
        waiting: bool = False,
        event: Literal["Normal", "Warning"] = "Warning",
        requeue_after: float | None = None,
        actions: Sequence[Action] = (),
    ) -> Decision:
        """The job is under way.

        `waiting`: something the user should know of keeps its pod from running; an `event` of that type tells of it.
        """
        events = self.events
        if self._was_suspended():
            events = (KubernetesEvent("Normal", "Resumed", "The job goes on."), *events)
        if waiting and self._reason() != reason:
            events = (*events, KubernetesEvent(event, reason, message))
        phase = status.phase(self.status, waiting=waiting)
        return self._decision("unfinished", reason, message, {"phase": phase}, events, requeue_after, actions)

    def suspend(self, message: str, *, requeue_after: float | None = None, actions: Sequence[Action] = ()) -> Decision:
        """The job is held until its user lets it go on."""
        events = self.events
        if not self._was_suspended():
            events = (*events, KubernetesEvent("Normal", SUSPENDED, message))
        return self._decision("suspended", SUSPENDED, message, {"phase": "Suspended"}, events, requeue_after, actions)

    def block(self, reason: str, message: str) -> Decision:
        """The job cannot go on until its spec is edited. What runs, runs on."""
        events = self.events
        if self._reason() != reason:
            events = (*events, KubernetesEvent("Warning", reason, message))
        return self._decision("blocked", reason, message, {}, events)

    def fail(self, failure: Failure, actions: Sequence[Action] = ()) -> Decision:
        """The job is over."""
        event = KubernetesEvent("Warning", "Failed", failure.message)
        update = {"phase": "Failed", "failure": failure, "completion_time": format_time(self.now)}
        update["start_time"] = self.status.start_time or format_time(self.now)
        return self._decision("failed", failure.reason, failure.message, update, (*self.events, event), None, actions)

    def succeed(self) -> Decision:
        """The job is over."""
        reason, message = "Succeeded", f"The model is in {self.status.output_uri}."
        if self.status.reused_from:
            reason = REUSED
            message = (
                f"The model is in {self.status.reused_from}: an identical run left it there and nothing was trained; "
                "output.reuse: Never trains anyway, under a new name."
            )
        event = KubernetesEvent("Normal", reason, message)
        update = {"phase": "Succeeded", "completion_time": format_time(self.now)}
        return self._decision("succeeded", reason, message, update, (*self.events, event))

    def keep(self, actions: Sequence[Action] = ()) -> Decision:
        """The job was over before: only tell that the present spec was seen."""
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
        built = conditions.build(
            self.observation.status.conditions,
            state,
            reason,
            message,
            accepted=self.accepted,
            evaluated=evaluated(self.status.evaluation),
            now=self.now,
            generation=generation,
        )
        spec = self.observation.spec
        asked = spec.retry_generation if spec else self.status.retry_generation
        changed = {
            **update,
            "observed_generation": generation,
            "conditions": built,
            # One that is raised while the job is under way asks for nothing.
            "retry_generation": max(asked, self.status.retry_generation),
        }
        return self._changed(self.status.model_copy(update=changed), events, requeue_after, actions)

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
