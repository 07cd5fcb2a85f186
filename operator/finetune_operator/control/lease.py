"""The rules of leader election: what a replica may conclude and write, from what it read and when. Pure.

The rules are those of client-go. A replica never compares the times in the Lease with its own clock. It takes the Lease
when nobody holds it, or when the record has not changed for the duration that its holder promised, measured on this
replica's clock from when it first saw the record. A holder measures from when it *sent* the last renewal that was
confirmed. Every write is conditional on the resourceVersion that was read, so only one of several candidates gets the
Lease, and none does if the holder renews it in between.

Two replicas never lead at the same time, as long as no clock runs more than 19 % faster than another: the holder stops
at `RENEW_DEADLINE_SECONDS`, before anybody else may take the Lease.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

Object = dict[str, Any]

# The components of Kubernetes use 2, 10 and 15. These values make a failover shorter: the API server may hang for two
# renewals, or refuse for 5 seconds, before the leader stops. The 3 seconds from there to the end of the Lease are for
# the requests that it has begun by then.
RENEW_SECONDS = 2.0
RENEW_DEADLINE_SECONDS = 7.0
LEASE_SECONDS = 10
# Half of the renewals' interval: it bounds how long a released Lease stays free.
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Lease:
    """A stored Lease. It is free if `holder` is empty."""

    body: Object

    @property
    def _spec(self) -> Object:
        return self.body.get("spec") or {}

    @property
    def holder(self) -> str:
        """The identity of the replica that holds it."""
        return self._spec.get("holderIdentity") or ""

    @property
    def duration(self) -> float:
        """The duration that its holder promised, in seconds; the holder may have another version than this replica."""
        return float(self._spec.get("leaseDurationSeconds") or LEASE_SECONDS)

    def says_the_same(self, other: "Lease | None") -> bool:
        """Whether the record is the same; a new label does not count as a renewal."""
        return other is not None and self._spec == other._spec


@dataclass(frozen=True)
class Candidate:
    """What one replica knows. All times are seconds of its own clock.

    `identity` is unique to this process: a restarted one is another candidate. `stored` is None if there is no Lease,
    and `unchanged_since` is when this replica first saw it like this. `promised` is the duration of the last other
    holder that it saw. `is_current` is False if the Lease has to be read before it can be written. `renewed_at` is when
    the last confirmed renewal was sent; None if this replica never led.
    """

    identity: str
    stored: Lease | None = None
    unchanged_since: float = 0.0
    promised: float = 0.0
    is_current: bool = False
    renewed_at: float | None = None

    def leads(self, now: float) -> bool:
        """Whether this replica may change anything now."""
        return self.renewed_at is not None and now - self.renewed_at < RENEW_DEADLINE_SECONDS and not self._replaced

    def lost(self, now: float) -> bool:
        """Whether this replica led and no longer does. That is final: it must not write the Lease again."""
        return self.renewed_at is not None and not self.leads(now)

    @property
    def _replaced(self) -> bool:
        return self.stored is not None and self.stored.holder != self.identity

    def saw(self, lease: Lease | None, now: float) -> "Candidate":
        """Take in what was read; `now` is after the answer came."""
        same = self.stored is None if lease is None else lease.says_the_same(self.stored)
        since = self.unchanged_since if same else now
        promised = self.promised
        if lease is not None:
            promised = lease.duration if lease.holder not in ("", self.identity) else 0.0
        return replace(self, stored=lease, unchanged_since=since, promised=promised, is_current=True)

    def wrote(self, lease: Lease, sent_at: float, now: float) -> "Candidate":
        """Take in that the proposal was stored: this replica leads, from when it sent it."""
        return replace(self.saw(lease, now), renewed_at=sent_at)

    def failed(self) -> "Candidate":
        """Take in that a request failed or may have failed: the Lease has to be read again."""
        return replace(self, is_current=False)

    def proposal(self, now: float, moment: datetime) -> Object | None:
        """Return the Lease to be created, or stored on the condition of its resourceVersion; None if not now.

        `moment` is the time of day in UTC, for people to read. If this replica holds the Lease but never got an answer
        that says so, it renews the Lease like any other, and leads from that renewal on.
        """
        if not self.is_current or self.lost(now):
            return None
        if self.stored is not None and self.stored.holder == self.identity:
            return self._record(moment)
        # Somebody may have deleted the Lease, and its holder may not have noticed yet.
        if self.promised and now - self.unchanged_since < self.promised:
            return None
        transitions = -1 if self.stored is None else int(self.stored._spec.get("leaseTransitions") or 0)
        return self._record(moment, transitions=transitions + 1)

    def release(self, moment: datetime) -> Object | None:
        """Return the Lease to be stored when this replica shuts down, so that another one takes over at once."""
        if self.renewed_at is None or self.stored is None or self._replaced:
            return None
        # As client-go does: a replica that does not understand an empty holder waits for one second.
        spec = {**self.stored._spec, "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro(moment)}
        return {**self.stored.body, "spec": spec}

    def _record(self, moment: datetime, transitions: int | None = None) -> Object:
        body: Object = self.stored.body if self.stored else {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        spec = {**(body.get("spec") or {}), "holderIdentity": self.identity, "leaseDurationSeconds": LEASE_SECONDS}
        spec["renewTime"] = _micro(moment)
        if transitions is not None:
            spec |= {"acquireTime": _micro(moment), "leaseTransitions": transitions}
        return {**body, "spec": spec}


def _micro(moment: datetime) -> str:
    """Return metav1.MicroTime."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
