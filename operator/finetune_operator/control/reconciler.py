"""One pass over one FineTuneJob: observe, then decide and act until nothing more follows."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import ValidationError

from finetune_api.status import FineTuneJobStatus
from finetune_operator.cluster.apply import FIELD_MANAGER, Refused, carry_out, emit, write_status
from finetune_operator.cluster.client import KubeClient, Object
from finetune_operator.cluster.errors import NotFound
from finetune_operator.cluster.observe import observe
from finetune_operator.decide import conditions
from finetune_operator.decide.decide import decide
from finetune_operator.decide.decision import Action, CreateJob, Decision, Deletion, KubernetesEvent
from finetune_operator.decide.observation import Observation
from finetune_operator.job_defaults import Settings
from finetune_operator.progress.writer import settle, stored
from finetune_operator.serving.metrics import Metrics

_log = logging.getLogger(__name__)

Key = tuple[str, str]

# Steps of one pass: from acceptance to its first Job, a job needs three. After this many it is observed again.
_MAXIMUM_STEPS = 8


class Reconciler:
    """The handler of the work queue.

    Level-triggered: a pass gets only the key of a FineTuneJob and reads everything again, so it may run late, twice, or
    after a crash at any point of an earlier one. `settings` is called in each step, because the certificate authority
    may be renewed; `ended(key)` in each pass of a job that is finished or gone; and `creates(key, name)` before a Job
    of that name is created.
    """

    def __init__(
        self,
        client: KubeClient,
        settings: Callable[[], Settings],
        metrics: Metrics,
        *,
        ended: Callable[[Key], None],
        creates: Callable[[Key, str], None],
    ) -> None:
        self._client = client
        self._settings = settings
        self._metrics = metrics
        self._ended = ended
        self._creates = creates

    async def __call__(self, key: Key) -> float | None:
        """Run one pass; return the seconds until the next one, None to wait for a change.

        Raises:
            KubeError: the pass ended early; the next one observes what it left.
        """
        began = time.monotonic()
        outcome = "error"
        try:
            wait = await self._pass(key)
            outcome = "ok"
        finally:
            self._metrics.reconcile_seconds.labels(outcome).observe(time.monotonic() - began)
        return wait

    async def _pass(self, key: Key) -> float | None:
        try:
            job, observation = await observe(self._client, *key)
        except NotFound:
            # Its children carry an owner reference, so Kubernetes deletes them.
            self._metrics.phase(key, None)
            self._ended(key)
            return None
        except ValidationError:
            _log.error(
                "the job is left alone: a version that this one does not support wrote its status", extra={"key": key}
            )
            return None
        events: list[KubernetesEvent] = []
        try:
            return await self._act(key, job, observation, events)
        finally:
            # The status that they report is written, whatever failed after that.
            await emit(self._client, job, events)

    async def _act(
        self, key: Key, job: Object, observation: Observation, events: list[KubernetesEvent]
    ) -> float | None:
        """Decide and act on what was observed; append to `events`; return the seconds until the next pass."""
        for _ in range(_MAXIMUM_STEPS):
            decision = decide(observation, datetime.now(UTC), self._settings())
            try:
                answers = await self._carry_out(key, job, decision.actions)
            except Refused as refused:
                if observation.refusal:
                    raise
                observation = replace(observation, refusal=str(refused))
                continue
            observation = observation.with_children(answers)
            if any(isinstance(action, CreateJob) for action in decision.actions):
                # Decide again with the Job: then one status reports that it started.
                continue
            if decision.status is None:
                self._account(key, job, observation.status)
                await settle(self._client, job, observation.status)
                return decision.requeue_after
            job = await write_status(self._client, job, decision.status, manager=FIELD_MANAGER)
            events += decision.events
            old = observation.status
            observation = observation.with_status(job)
            self._metrics.transition(key[0], old, observation.status)
            self._account(key, job, observation.status)
            if not may_continue(old, observation.status, decision):
                return wait_for_next(old, observation.status, decision)
        return 0.0

    async def _carry_out(self, key: Key, job: Object, actions: Sequence[Action]) -> list[Object]:
        for action in actions:
            if isinstance(action, CreateJob):
                self._creates(key, action.body["metadata"]["name"])
        return await carry_out(self._client, job, actions)

    def _account(self, key: Key, job: Object, status: FineTuneJobStatus) -> None:
        self._metrics.phase(key, status.phase or "Pending")
        if conditions.is_true(status.conditions, "Finished"):
            self._ended(key)
        elif report := stored(job):
            self._metrics.progress(key, report)


def may_continue(old: FineTuneJobStatus, new: FineTuneJobStatus, decision: Decision) -> bool:
    """Whether a pass may continue on what was observed, once `new` is written in place of `old`.

    After a deletion, the cluster has to be observed again.
    """
    return _state(new) != _state(old) and not any(isinstance(action, Deletion) for action in decision.actions)


def wait_for_next(old: FineTuneJobStatus, new: FineTuneJobStatus, decision: Decision) -> float | None:
    """Return the seconds until the next pass after `new` was written, None to wait for a change.

    It is 0 if the written status lets the next pass do something, because a change of the status causes no pass.
    """
    return decision.requeue_after if _state(new) == _state(old) else 0.0


def _state(status: FineTuneJobStatus) -> object:
    # A stage that starts to run needs nothing. Other changes are only text.
    stages = [(s.name, s.attempt, "Pending" if s.state == "Running" else s.state) for s in status.stages]
    return stages, status.snapshot, {c.type: c.status for c in status.conditions}
