"""The election, with several replicas against one stored Lease under every kind of bad luck."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_operator.control.lease import LEASE_SECONDS, POLL_SECONDS, RENEW_DEADLINE_SECONDS, Candidate, Lease

NOON = datetime(2026, 11, 27, 12, 0, 0, 250000, tzinfo=UTC)
# Hardware clocks are wrong by less than 0.1 %; this is generous.
RATES = st.sampled_from((0.9, 1.0, 1.1))
_TICK = 0.5


def lease(holder: str = "", version: int = 1, renewed: str = "then", **spec: Any) -> Lease:
    record = {"holderIdentity": holder, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": renewed, **spec}
    return Lease({"metadata": {"resourceVersion": str(version)}, "spec": record})


def leading(sent_at: float = 0.0) -> Candidate:
    return Candidate("a").wrote(lease("a"), sent_at, sent_at + 1)


def test_the_first_replica_creates_the_lease() -> None:
    assert Candidate("a").saw(None, 5.0).proposal(5.0, NOON) == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "spec": {
            "holderIdentity": "a",
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": "2026-11-27T12:00:00.250000Z",
            "renewTime": "2026-11-27T12:00:00.250000Z",
            "leaseTransitions": 0,
        },
    }


def test_nothing_is_written_before_the_lease_was_read() -> None:
    assert Candidate("a").proposal(99.0, NOON) is None


@pytest.mark.parametrize(("seconds", "takes"), [(9.9, False), (10.0, True)])
def test_a_lease_is_taken_when_its_record_did_not_change_for_its_duration(seconds: float, takes: bool) -> None:
    standby = Candidate("b").saw(lease("a"), 100.0).saw(lease("a", version=2), 100.0 + seconds)
    assert (standby.proposal(100.0 + seconds, NOON) is not None) == takes


def test_a_renewal_starts_the_wait_again() -> None:
    standby = Candidate("b").saw(lease("a"), 100.0).saw(lease("a", renewed="now"), 109.0)
    assert standby.proposal(111.0, NOON) is None


def test_a_holder_of_another_version_keeps_what_it_promised() -> None:
    standby = Candidate("b").saw(lease("a", leaseDurationSeconds=30), 0.0)
    assert standby.proposal(29.0, NOON) is None
    assert standby.proposal(30.0, NOON) is not None


def test_a_released_lease_is_taken_at_once() -> None:
    standby = Candidate("b").saw(lease("a", leaseTransitions=4), 0.0).saw(lease(leaseTransitions=4), 1.0)
    proposal = standby.proposal(1.0, NOON)
    assert proposal is not None
    assert (proposal["spec"]["holderIdentity"], proposal["spec"]["leaseTransitions"]) == ("b", 5)


def test_the_lease_of_a_holder_that_may_not_have_noticed_its_deletion_is_not_recreated() -> None:
    standby = Candidate("b").saw(lease("a"), 0.0).saw(None, 1.0).saw(None, 2.0)
    assert standby.proposal(10.9, NOON) is None
    assert standby.proposal(11.0, NOON) is not None


def test_the_holder_recreates_a_deleted_lease_at_once() -> None:
    assert leading().saw(None, 2.0).proposal(2.0, NOON) is not None


def test_a_holder_leads_for_the_deadline_from_when_it_sent_the_renewal() -> None:
    holder = leading(sent_at=50.0)
    assert holder.leads(50.0 + RENEW_DEADLINE_SECONDS - 0.01)
    assert holder.lost(50.0 + RENEW_DEADLINE_SECONDS)


def test_who_lost_the_lease_never_writes_it_again() -> None:
    holder = leading().saw(lease("a", version=7), RENEW_DEADLINE_SECONDS)
    assert holder.proposal(RENEW_DEADLINE_SECONDS, NOON) is None


def test_another_holder_ends_the_lead_at_once() -> None:
    assert leading().saw(lease("b"), 1.0).lost(1.0)


def test_a_lost_answer_does_not_count_as_a_renewal() -> None:
    holder = leading().failed().saw(lease("a", version=2, renewed="later"), 5.0)
    assert holder.lost(RENEW_DEADLINE_SECONDS)
    assert holder.proposal(5.0, NOON) is not None


def test_what_others_wrote_on_the_lease_stays() -> None:
    found = Lease({"metadata": {"labels": {"team": "ops"}}, "spec": {}})
    proposal = Candidate("a").saw(found, 0.0).proposal(0.0, NOON)
    assert proposal is not None
    assert proposal["metadata"] == {"labels": {"team": "ops"}}


def test_only_a_leader_releases_and_keeps_the_count() -> None:
    assert Candidate("b").saw(lease("a"), 0.0).release(NOON) is None
    assert leading().saw(lease("b"), 1.0).release(NOON) is None
    released = leading().release(NOON)
    assert released is not None
    assert (released["spec"]["holderIdentity"], released["spec"]["leaseDurationSeconds"]) == ("", 1)


@dataclass
class Request:
    """On its way: None as the body of a read. `answer` is None until the server worked on it."""

    sender: str
    body: dict[str, Any] | None
    creates: bool
    sent_at: float
    answer: tuple[bool, dict[str, Any] | None] | None = None


@dataclass
class Replica:
    offset: float
    rate: float
    candidate: Candidate
    request: Request | None = None

    def now(self, real: float) -> float:
        return self.offset + self.rate * real


@dataclass
class Election:
    """Several replicas, whose requests take as long as the test wants, or are lost before or after they took effect."""

    replicas: list[Replica]
    real: float = 0.0
    stored: dict[str, Any] | None = None
    version: int = 0
    late: list[Request] = field(default_factory=list)
    names: int = 0

    def step(self, action: str, which: int, seconds: float) -> None:
        """Let time pass, in which all the others get on well, and then something happen to this one."""
        unlucky = self.replicas[which % len(self.replicas)]
        if action == "slow":
            self._send(unlucky)
            self._arrive(unlucky)
        until = self.real + seconds
        while self.real < until:
            self.real = min(self.real + _TICK, until)
            for other in self.replicas:
                if other is not unlucky:
                    self._round(other)
                    self._check()
        getattr(self, f"_{action}")(unlucky)
        self._check()

    def _check(self) -> None:
        leaders = [r.candidate.identity for r in self.replicas if r.candidate.leads(r.now(self.real))]
        assert len(leaders) <= 1, f"{leaders} lead at {self.real}"

    def _send(self, replica: Replica) -> None:
        now = replica.now(self.real)
        if replica.candidate.lost(now):
            return self._restart(replica)
        if replica.request is None:
            body = replica.candidate.proposal(now, NOON)
            if body is not None:
                # Each renewal has another time of day, which nobody reads but everybody sees change.
                body["spec"]["renewTime"] = f"{replica.candidate.identity} {self.real}"
            creates = replica.candidate.stored is None
            replica.request = Request(replica.candidate.identity, body, creates, now)
        return None

    def _arrive(self, replica: Replica) -> None:
        if replica.request and replica.request.answer is None:
            replica.request.answer = self._serve(replica.request)

    def _serve(self, request: Request) -> tuple[bool, dict[str, Any] | None]:
        if request.body is None:
            return True, self.stored
        if request.creates != (self.stored is None):
            return False, None
        if self.stored and request.body["metadata"] != self.stored["metadata"]:
            return False, None
        self.version += 1
        self.stored = {**request.body, "metadata": {"resourceVersion": str(self.version)}}
        return True, self.stored

    def _answer(self, replica: Replica) -> None:
        request, now = replica.request, replica.now(self.real)
        if request is None or request.answer is None:
            return
        replica.request = None
        accepted, body = request.answer
        stored = Lease(body) if body else None
        if not accepted:
            replica.candidate = replica.candidate.failed()
        elif request.body is None:
            replica.candidate = replica.candidate.saw(stored, now)
        elif stored is not None:
            replica.candidate = replica.candidate.wrote(stored, request.sent_at, now)

    def _round(self, replica: Replica) -> None:
        """The whole way without bad luck: reading, then writing."""
        for step in (self._send, self._arrive, self._answer) * 2:
            step(replica)

    def _slow(self, replica: Replica) -> None:
        """The answer comes only now, to what was sent before the time passed."""
        self._answer(replica)

    def _lose(self, replica: Replica) -> None:
        """The replica gives up waiting; the request may still arrive, much later."""
        if replica.request:
            self.late.append(replica.request)
            replica.request = None
            replica.candidate = replica.candidate.failed()

    def _arrive_late(self, replica: Replica) -> None:
        if self.late:
            self._serve(self.late.pop(0))

    def _restart(self, replica: Replica) -> None:
        self._lose(replica)
        self.names += 1
        replica.candidate = Candidate(f"restarted-{self.names}")

    def all_know_the_holder(self) -> bool:
        """Whether each replica has last seen the Lease with the holder that it has."""
        holder = Lease(self.stored).holder if self.stored else None
        return all((r.candidate.stored.holder if r.candidate.stored else None) == holder for r in self.replicas)

    def _pause(self, replica: Replica) -> None:
        """Only time passes."""


SECONDS = st.sampled_from((0.0, 0.0, 0.3, 1.0, 2.0, 4.0, 6.5, 9.0, 11.0))


def steps(*more: str) -> st.SearchStrategy[list[tuple[str, int, float]]]:
    actions = ("send", "arrive", "answer", "round", "slow", "slow", "lose", "arrive_late", "pause", *more)
    return st.lists(st.tuples(st.sampled_from(actions), st.integers(0, 2), SECONDS), max_size=25)


CLOCKS = st.lists(st.tuples(st.floats(-1e6, 1e6), RATES), min_size=2, max_size=3)


def election(clocks: list[tuple[float, float]]) -> Election:
    return Election([Replica(o, r, Candidate(f"replica-{i}")) for i, (o, r) in enumerate(clocks)])


@settings(max_examples=400, deadline=None)
@given(CLOCKS, steps("restart"))
def test_never_do_two_replicas_lead_at_the_same_time(
    clocks: list[tuple[float, float]], story: list[tuple[str, int, float]]
) -> None:
    world = election(clocks)
    for step in story:
        world.step(*step)


@settings(max_examples=200, deadline=None)
@given(CLOCKS, steps("delete"))
def test_not_even_if_somebody_deletes_the_lease_that_all_of_them_have_seen(
    clocks: list[tuple[float, float]], story: list[tuple[str, int, float]]
) -> None:
    world = election(clocks)
    for which in range(len(world.replicas)):
        world.step("round", which, 0.0)
    for action, which, seconds in story:
        # A process that is new does not know whose Lease there was, nor one that got no answer since it changed hands.
        replica = world.replicas[which % len(world.replicas)]
        if action == "delete":
            world.step("pause", which, seconds)
            if world.all_know_the_holder():
                world.stored = None
        elif not replica.candidate.lost(replica.now(world.real + seconds)):
            world.step(action, which, seconds)


@settings(deadline=None)
@given(CLOCKS, steps("restart"))
def test_whatever_happened_somebody_leads_soon_after(
    clocks: list[tuple[float, float]], story: list[tuple[str, int, float]]
) -> None:
    world = election(clocks)
    for step in story:
        world.step(*step)
    for replica in world.replicas:
        world._lose(replica)
    for _ in range(int(2 * LEASE_SECONDS / POLL_SECONDS)):
        world.real += POLL_SECONDS
        for which in range(len(world.replicas)):
            world.step("round", which, 0.0)
    assert any(r.candidate.leads(r.now(world.real)) for r in world.replicas)
