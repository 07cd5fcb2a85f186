"""Leader election by one Lease, so that only one replica reconciles; `lease` has the rules."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

from finetune_operator.cluster.client import LEASES, KubeClient
from finetune_operator.cluster.errors import Conflict, KubeError, LeadershipLost, NotFound
from finetune_operator.control.lease import POLL_SECONDS, RENEW_DEADLINE_SECONDS, RENEW_SECONDS, Candidate, Lease

_log = logging.getLogger(__name__)

# So that a renewal may hang twice before the deadline.
_REQUEST_SECONDS = 2.0
_AFTER_A_CONFLICT_SECONDS = 0.1


def boot_seconds() -> float:
    """Return a time in seconds that advances while this process is stopped (SIGSTOP, freezer) or the machine sleeps.

    CLOCK_MONOTONIC does not advance while the machine is suspended.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Leadership:
    """One replica's part in the election.

    Whatever changes the cluster has to call `check` right before each request.
    """

    def __init__(
        self, client: KubeClient, namespace: str, name: str, pod_name: str, clock: Callable[[], float] = boot_seconds
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._clock = clock
        # A restarted container has the same pod name, and must not take the Lease of the previous one for its own.
        self._candidate = Candidate(f"{pod_name}_{secrets.token_hex(4)}")
        self._won = asyncio.Event()
        # One request at a time, so that the release is the last.
        self._lock = asyncio.Lock()
        self._released = False
        self._failing = False

    @property
    def leads(self) -> bool:
        """Whether this replica leads now."""
        return not self._released and self._candidate.leads(self._clock())

    def check(self) -> None:
        """Return if this replica leads now: the last confirmed renewal is less than the renew deadline ago.

        Raises:
            LeadershipLost: it does not lead, for example after a longer pause. The process has to end.
        """
        if not self.leads:
            raise LeadershipLost(
                f"the Lease {self._namespace}/{self._name} was not renewed for {RENEW_DEADLINE_SECONDS:.0f} seconds, "
                "or another replica holds it"
            )

    async def won(self) -> None:
        """Wait until this replica leads."""
        await self._won.wait()

    async def run(self) -> None:
        """Try to lead, and renew from then on, until released.

        Raises:
            LeadershipLost: this replica was the leader and is no longer.
        """
        while not self._released:
            async with self._lock:
                wait = await self._round()
            if self._candidate.lost(self._clock()) and not self._released:
                self.check()
            await asyncio.sleep(wait)

    async def _round(self) -> float:
        """Read the Lease if necessary, write it if that is due; return the seconds until the next round."""
        if self._released:
            return 0.0
        led = self._candidate.renewed_at is not None
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                if not (led and self._candidate.is_current):
                    self._candidate = self._candidate.saw(await self._read(), self._clock())
                wait = await self._write()
            self._failing = False
            return wait
        except Conflict:
            self._candidate = self._candidate.failed()
            return _AFTER_A_CONFLICT_SECONDS
        except (KubeError, TimeoutError) as error:
            self._candidate = self._candidate.failed()
            # Only the first failure of an outage is worth a line.
            level = logging.DEBUG if self._failing else logging.WARNING
            _log.log(level, "the Lease cannot be %s: %r", "renewed" if led else "read or taken", error)
            self._failing = True
            return POLL_SECONDS

    async def _read(self) -> Lease | None:
        try:
            return Lease(await self._client.get(LEASES, self._namespace, self._name))
        except NotFound:
            return None

    async def _write(self) -> float:
        sent_at = self._clock()
        body = self._candidate.proposal(sent_at, datetime.now(UTC))
        if body is None:
            return POLL_SECONDS
        if self._candidate.stored is None:
            metadata = {"namespace": self._namespace, "name": self._name}
            stored = await self._client.create(LEASES, self._namespace, {**body, "metadata": metadata})
        else:
            stored = await self._client.replace(LEASES, self._namespace, self._name, body)
        self._candidate = self._candidate.wrote(Lease(stored), sent_at, self._clock())
        if self.leads and not self._won.is_set():
            self._won.set()
            _log.info("leading, as %s", self._candidate.identity)
        return RENEW_SECONDS

    async def release(self) -> None:
        """Release the Lease if this replica holds it. All its changes to the cluster must have ended before."""
        self._released = True
        async with self._lock:  # a renewal in progress comes first
            body = self._candidate.release(datetime.now(UTC))
            if body is None or not self._candidate.leads(self._clock()):
                return
            try:
                async with asyncio.timeout(_REQUEST_SECONDS):
                    await self._client.replace(LEASES, self._namespace, self._name, body)
            except (KubeError, TimeoutError) as error:
                _log.warning("the Lease was not released; it expires by itself: %r", error)
