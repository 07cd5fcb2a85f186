"""One pass over one FineTuneJob: observe, decide, apply."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import ValidationError

from finetune_api.status import FineTuneJobStatus
from finetune_operator.apply import Refused, apply
from finetune_operator.decide import decide
from finetune_operator.decision import Decision
from finetune_operator.errors import NotFound
from finetune_operator.job_settings import Settings
from finetune_operator.kube import KubeClient, Object
from finetune_operator.metrics import Metrics
from finetune_operator.observation import Observation
from finetune_operator.observe import observe
from finetune_operator.progress_writer import settle, stored

_log = logging.getLogger(__name__)

Key = tuple[str, str]


class Reconciler:
    """The handler of the work queue.

    Level-triggered: a pass is told only which FineTuneJob to look at and reads everything afresh, so it may come late,
    twice, or after a crash at any point of an earlier one. `settings` is asked in each pass, since the certificate
    authority may be renewed; `ended(key)` is called in each pass of a job that is finished or gone.
    """

    def __init__(
        self, client: KubeClient, settings: Callable[[], Settings], metrics: Metrics, ended: Callable[[Key], None]
    ) -> None:
        self._client = client
        self._settings = settings
        self._metrics = metrics
        self._ended = ended

    async def __call__(self, key: Key) -> float | None:
        """Make one pass; return the seconds until the next one is wanted, None to wait for a change.

        Raises:
            KubeError: the pass ended early; a new one will observe what it left.
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
                "left alone: its status was written by a version that this one does not know", extra={"key": key}
            )
            return None
        decision = await self._apply(job, observation)
        self._account(key, job, observation, decision)
        if decision.status is None:
            # Otherwise the next pass does it.
            await settle(self._client, job, observation.status)
        return wait_for_next(observation.status, decision)

    async def _apply(self, job: Object, observation: Observation) -> Decision:
        decision = decide(observation, datetime.now(UTC), self._settings())
        try:
            await apply(self._client, job, decision)
        except Refused as refused:
            again = replace(observation, refusal=str(refused))
            decision = decide(again, datetime.now(UTC), self._settings())
            await apply(self._client, job, decision)
        return decision

    def _account(self, key: Key, job: Object, observation: Observation, decision: Decision) -> None:
        status = observation.status
        if decision.status is not None:
            status = FineTuneJobStatus.model_validate(decision.status)
            self._metrics.transition(key[0], observation.status, status)
        self._metrics.phase(key, status.phase or "Pending")
        if any(c.type == "Finished" and c.status == "True" for c in status.conditions):
            self._ended(key)
        elif report := stored(job):
            self._metrics.progress(key, report)


def wait_for_next(old: FineTuneJobStatus, decision: Decision) -> float | None:
    """Return the seconds until the next pass is wanted, None to wait for a change; `old` is the status observed.

    It is wanted at once if the status that was written lets it do something: a status brings on no pass by itself.
    """
    if decision.status is None:
        return decision.requeue_after
    new = FineTuneJobStatus.model_validate(decision.status)
    return decision.requeue_after if _state(new) == _state(old) else 0.0


def _state(status: FineTuneJobStatus) -> object:
    # A stage that is found running asks for nothing. All else that changes is text.
    stages = [(s.name, s.attempt, "Pending" if s.state == "Running" else s.state) for s in status.stages]
    return stages, status.snapshot, {c.type: c.status for c in status.conditions}
