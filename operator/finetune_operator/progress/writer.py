"""Puts reports into `status.progress`, under a field manager of its own, at the pace that the store says."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from pydantic import ValidationError

from finetune_api.progress import ProgressStatus
from finetune_api.status import FineTuneJobStatus
from finetune_operator.cluster.apply import write_status
from finetune_operator.cluster.client import FINETUNE_JOBS, KubeClient, Object
from finetune_operator.cluster.errors import NotFound
from finetune_operator.decide.conditions import is_finished
from finetune_operator.progress.store import ProgressStore, at_rest, goes_back, shown

FIELD_MANAGER = "finetune-operator-progress"


class ProgressWriter:
    """The handler of a work queue: called with a key, it writes that job's latest report."""

    def __init__(self, client: KubeClient, store: ProgressStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._store = store
        self._clock = clock

    async def __call__(self, key: tuple[str, str]) -> float | None:
        """Write, and return after how many seconds there will be more to write.

        Any replica may do this at any time: the write is conditional on the FineTuneJob that the guard looked at.

        Raises:
            Conflict: it has changed since; try again.
            KubeError: the API server cannot be asked.
        """
        entry = self._store.entries.get(key)
        if entry is None or entry.is_written:
            return None
        try:
            job = await self._client.get(FINETUNE_JOBS, *key)
        except NotFound:
            self._store.forget(key)
            return None
        if job["metadata"]["uid"] != entry.uid or is_finished(job):
            self._store.forget(key)
            return None
        # Another replica may have heard newer news.
        if not goes_back(entry.latest, stored(job)):
            progress = shown(entry.latest, datetime.now(UTC))
            await write_status(self._client, job, {"progress": progress.to_json()}, manager=FIELD_MANAGER)
        now = self._clock()
        present = self._store.wrote(key, entry, now)
        return None if present is None or present.is_written else present.due_in(now)


async def settle(client: KubeClient, job: Object, status: FineTuneJobStatus) -> None:
    """Take back what the last report says of the present, once nothing of it is present any more.

    Raises:
        Conflict: the FineTuneJob has changed since it was read.
        KubeError: the API server cannot be asked.
    """
    report = stored(job)
    if report is None:
        return
    rest = at_rest(report, status)
    if rest != report:
        await write_status(client, job, {"progress": rest.to_json()}, manager=FIELD_MANAGER)


def stored(job: Object) -> ProgressStatus | None:
    """Return the report in the status of a FineTuneJob."""
    found = (job.get("status") or {}).get("progress")
    try:
        return ProgressStatus.model_validate(found) if found is not None else None
    except ValidationError:
        return None  # written by a version that knows more; its next report comes soon
