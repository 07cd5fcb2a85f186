"""Writes reports to `status.progress`, with its own field manager, as often as the store wants it."""

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
    """The handler of a work queue: writes the latest report of the job with that key."""

    def __init__(self, client: KubeClient, store: ProgressStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._store = store
        self._clock = clock

    async def __call__(self, key: tuple[str, str]) -> float | None:
        """Write the report; return the seconds until the next write, None if nothing is left to write.

        Any replica may do this at any time: the write is conditional on the FineTuneJob that was read and checked.

        Raises:
            Conflict: the FineTuneJob has changed since.
            KubeError: the API server cannot be reached.
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
        # Another replica may have written a newer report.
        last = stored(job)
        if not goes_back(entry.latest, last):
            progress = shown(entry.latest, last, datetime.now(UTC))
            await write_status(self._client, job, {"progress": progress.to_json()}, manager=FIELD_MANAGER)
        now = self._clock()
        present = self._store.wrote(key, entry, now)
        return None if present is None or present.is_written else present.due_in(now)


async def settle(client: KubeClient, job: Object, status: FineTuneJobStatus) -> None:
    """Remove from the last report what is true only while its attempt runs, once that has ended.

    Raises:
        Conflict: the FineTuneJob has changed since it was read.
        KubeError: the API server cannot be reached.
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
        return None  # of a version with other members; the next report comes soon
