"""A work queue: each key waits at most once, is processed by at most one worker, and is retried with backoff."""

import asyncio
import heapq
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from finetune_operator.cluster.errors import Conflict, KubeError, LeadershipLost

_log = logging.getLogger(__name__)

Key = TypeVar("Key")

FIRST_BACKOFF_SECONDS = 0.5
# Not longer: after an outage of the API server every job moves on within a minute.
MAXIMUM_BACKOFF_SECONDS = 60.0


def backoff_seconds(failures: int) -> float:
    """Return the wait after the n-th failure in a row, n from 1: doubling from half a second to a minute."""
    return min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 30), MAXIMUM_BACKOFF_SECONDS)


class Schedule(Generic[Key]):
    """When each key is due. Pure: the caller passes the time, in seconds of any clock."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = 0
        self._active: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}

    def __len__(self) -> int:
        """How many keys wait, due or not."""
        return len(self._due)

    @property
    def active(self) -> dict[Key, float]:
        """The keys in process, with the times at which that began."""
        return dict(self._active)

    def add(self, key: Key, at: float) -> None:
        """Make a key due; the earliest of several times counts."""
        if key in self._due and self._due[key] <= at:
            return
        self._due[key] = at
        if key not in self._active:
            self._push(key, at)

    def _push(self, key: Key, at: float) -> None:
        self._order += 1  # first come, first served among equals; keys need not be comparable
        heapq.heappush(self._heap, (at, self._order, key))

    def next_due(self) -> float | None:
        """Return when the next key is due that is not in process."""
        while self._heap:
            at, _, key = self._heap[0]
            if key not in self._active and self._due.get(key) == at:
                return at
            heapq.heappop(self._heap)
        return None

    def take(self, now: float) -> Key | None:
        """Return the key that has been due for longest, which is then active; None if none is due."""
        at = self.next_due()
        if at is None or at > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._due[key]
        self._active[key] = now
        return key

    def finish(self, key: Key, now: float, *, failed: bool, requeue_after: float | None = None) -> None:
        """End the processing of a key. If the key was added meanwhile, it is due at that time."""
        del self._active[key]
        if failed:
            self._failures[key] = self._failures.get(key, 0) + 1
            self.add(key, now + backoff_seconds(self._failures[key]))
        else:
            self._failures.pop(key, None)
            if requeue_after is not None:
                self.add(key, now + requeue_after)
        if key in self._due:
            self._push(key, self._due[key])


class WorkQueue(Generic[Key]):
    """Processes a `Schedule` with a bounded number of concurrent handler calls.

    The handler returns the seconds after which the key is due again, or None. After an exception the key is due again
    after a backoff, except for LeadershipLost, which `run` raises.
    """

    def __init__(
        self,
        handler: Callable[[Key], Awaitable[float | None]],
        *,
        workers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._handler = handler
        self._workers = workers
        self._clock = clock
        self._schedule: Schedule[Key] = Schedule()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """How many keys wait, due or not."""
        return len(self._schedule)

    def add(self, key: Key, delay: float = 0.0) -> None:
        """Make a key due after `delay` seconds. Call it from the queue's event loop."""
        self._schedule.add(key, self._clock() + delay)
        self._changed.set()

    def longest_active_seconds(self) -> float:
        """Return how long the slowest handler call has been running; 0 if there is none."""
        now = self._clock()
        return max((now - began for began in self._schedule.active.values()), default=0.0)

    async def run(self) -> None:
        """Process keys until cancelled, which also cancels the calls in progress."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                while len(self._schedule.active) < self._workers:
                    key = self._schedule.take(self._clock())
                    if key is None:
                        break
                    group.create_task(self._work(key))
                await self._wait()

    async def _wait(self) -> None:
        due = self._schedule.next_due() if len(self._schedule.active) < self._workers else None
        if due is None:
            await self._changed.wait()
            return
        try:
            async with asyncio.timeout(max(due - self._clock(), 0.0)):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _work(self, key: Key) -> None:
        failed, requeue_after = True, None
        try:
            requeue_after = await self._handler(key)
            failed = False
        except Conflict as error:
            _log.info("reconciled again: %s", error, extra={"key": key})
        except KubeError as error:
            _log.warning("will be retried: %s", error, extra={"key": key})
        except LeadershipLost:
            raise  # ends the queue
        except Exception:  # noqa: BLE001 - a bug that affects one job must not stop the others
            _log.exception("will be retried after an unexpected error", extra={"key": key})
        finally:
            self._schedule.finish(key, self._clock(), failed=failed, requeue_after=requeue_after)
            self._changed.set()
