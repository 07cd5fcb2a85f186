"""No change is slept through: a pass is made only when news or an earlier pass asked for it, and yet every job ends."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from finetune_operator.control.event_filter import EventFilter
from finetune_operator.control.workqueue import Schedule
from finetune_operator.decide.job_and_pod import is_live_job
from tests.unit.operator.decide.test_invariants import PROFILE, FreshReads
from tests.unit.operator.world import Object, World, copied, spec

KEY = ("team", "coach")
# A pass that was asked for within that time is waited for; nothing else makes time pass for the operator.
PATIENCE_SECONDS = 30.0


class Replica:
    """An operator's queue, and watches that tell it of a `World`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.leads = False
        self.schedule: Schedule[tuple[str, str]] = Schedule()
        self.event_filter = EventFilter(self._add, lambda *_: None, lambda *_: None)
        world.creates = lambda name: self.event_filter.expect(KEY, name)
        # By uid, as the watches saw it last.
        self.seen: dict[str, Object] = {}
        self.watches_begin()
        self.leads = True
        self.full_list()

    @property
    def _now(self) -> float:
        return self.world.now.timestamp()

    def _add(self, key: tuple[str, str], seconds: float) -> None:
        if self.leads:
            self.schedule.add(key, self._now + seconds)

    def _present(self) -> dict[str, Object]:
        found = [*self.world.jobs, *self.world.pods, *([self.world.resource] if self.world.resource else [])]
        return {x["metadata"]["uid"]: copied(x) for x in found}

    def _tell(self, thing: Object, *, gone: bool = False, relisted: bool = False) -> None:
        if "template" in thing["spec"] or "containers" in thing["spec"]:
            self.event_filter.of_child(KEY, thing, gone=gone, relisted=relisted)
        else:
            self.event_filter.of_job(KEY, None if gone else thing, relisted=relisted)

    def hear(self) -> None:
        """The watches tell of what has changed."""
        before, self.seen = self.seen, self._present()
        for uid in before.keys() - self.seen.keys():
            self._tell(before[uid], gone=True)
        for uid, thing in self.seen.items():
            if before.get(uid) != thing:
                self._tell(thing)

    def watches_begin(self) -> None:
        """They list what is there, and never tell of what went meanwhile."""
        self.seen = self._present()
        for thing in self.seen.values():
            self._tell(thing, relisted=True)

    def full_list(self) -> None:
        with self.event_filter.full_list() as listed:
            if self.world.resource:
                listed(KEY, copied(self.world.resource))

    def due_in(self) -> float | None:
        at = self.schedule.next_due()
        return None if at is None else max(at - self._now, 0.0)

    def one_pass(self) -> Iterator[None]:
        """The pass that is due, call by call; nothing if none is."""
        key = self.schedule.take(self._now)
        if key is None:
            return
        gone, nothing = self.world.resource is None, object()
        self.world.last_requeue = nothing  # type: ignore[assignment]
        yield from self.world.operator_pass()
        wait: Any = self.world.last_requeue
        failed = wait is nothing and not gone
        self.schedule.finish(key, self._now, failed=failed, requeue_after=None if wait is nothing else wait)


class Woken(FreshReads):
    """Whose operator sleeps until it is asked."""

    @initialize(queued=st.booleans(), nodes=st.sampled_from((1, 2)))
    def jobs_may_queue(self, queued: bool, nodes: int) -> None:
        scheduling = {"scheduling": {"kueue": {"queueName": "gpu"}}} if queued else {}
        self.world = World(spec(compute={"nodes": nodes}, **scheduling))
        self.nodes = nodes
        self._starts()

    def _starts(self) -> None:
        self.operator = iter(())
        self.replica = Replica(self.world)

    @rule()
    def operator_acts(self) -> None:
        if next(self.operator, True):
            self.operator = self.replica.one_pass()

    @rule(steps=st.integers(1, 4))
    def operator_passes(self, steps: int) -> None:
        for _ in range(3 * steps):
            for _ in self.operator:
                pass
            self.hear()
            wait = self.replica.due_in()
            if wait is None or wait > PATIENCE_SECONDS:
                return
            self.world.now += timedelta(seconds=wait)
            self.operator = self.replica.one_pass()

    @rule()
    def operator_dies(self) -> None:
        self._starts()

    @rule(number=st.integers(1, 3))
    def operator_is_upgraded(self, number: int) -> None:
        super().operator_is_upgraded(number)
        self._starts()

    @rule()
    def watches_miss_what_happened(self) -> None:
        self.replica.watches_begin()

    @invariant()
    def hear(self) -> None:
        if hasattr(self, "replica"):
            self.replica.hear()

    @invariant()
    def nothing_of_a_finished_job_runs_on(self) -> None:
        """The operator may not have got round to it, but it is going to."""
        world = self.world
        if world.resource is None or not world.finished() or not hasattr(self, "replica"):
            return
        live = [j for j in world.jobs if is_live_job(j) and not j["metadata"].get("deletionTimestamp")]
        if live:
            active = bool(self.replica.schedule.active)
            assert active or self.replica.due_in() is not None, live[0]["metadata"]["name"]


TestWakeUps = Woken.TestCase
TestWakeUps.settings = settings(PROFILE, max_examples=60)


def _passes(world: World, replica: Replica, most: int) -> bool:
    """Make those that are asked for, and say whether none is left."""
    for _ in range(most):
        wait = replica.due_in()
        if wait is None:
            return True
        world.now += timedelta(seconds=wait)
        for _ in replica.one_pass():
            pass
        replica.hear()
    return False


def _run_to_its_end(world: World, replica: Replica) -> None:
    assert _passes(world, replica, 200), "the operator does not come to rest"


@pytest.mark.parametrize("target", ["Children", "FineTuneJob"])
def test_what_is_to_be_deleted_in_time_is_with_no_news_at_all(target: str) -> None:
    world = World(spec(ttlSecondsAfterFinished=3600, ttlTarget=target))
    world.reconcile()
    world.run(64, "")
    replica = Replica(world)
    assert world.finished()
    _run_to_its_end(world, replica)
    world.settle()
    assert world.jobs == []
    assert (world.resource is None) == (target == "FineTuneJob")


def test_a_job_that_runs_on_though_its_fine_tune_job_is_over_is_ended_by_the_next_operator() -> None:
    world = World()
    world.reconcile()
    late = copied(world.jobs[0])
    world.run(64, "")
    # Created by one that does not lead any more, while nobody did.
    world.jobs = [late]
    _run_to_its_end(world, Replica(world))
    world.settle()
    assert world.jobs == []


def test_a_deletion_that_the_watches_missed_is_found_when_they_start_again() -> None:
    world = World()
    replica = Replica(world)
    _passes(world, replica, 5)
    world.run_pod(world.start_pod(world.jobs[0]))
    replica.hear()
    _run_to_its_end(world, replica)
    assert world.stage("prepare")["state"] == "Running"
    world.jobs, world.pods = [], []
    replica.watches_begin()
    _passes(world, replica, 5)
    assert [j["metadata"]["name"] for j in world.jobs] == ["coach-00001-prepare-1"]


def test_the_time_that_a_job_is_kept_continues_after_an_edit_with_no_news_at_all() -> None:
    world = World(spec(ttlSecondsAfterFinished=3600))
    world.reconcile()
    world.run(64, "")
    world.edit(fsGroup=1)
    for _ in world.operator_pass():
        pass
    assert world.last_requeue == 3600
