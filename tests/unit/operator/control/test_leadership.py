import asyncio

import pytest

from finetune_operator.cluster.client import LEASES, Object
from finetune_operator.cluster.errors import Conflict, LeadershipLost, Unreachable
from finetune_operator.control import leadership
from finetune_operator.control.leadership import Leadership, boot_seconds
from finetune_operator.control.lease import LEASE_SECONDS, POLL_SECONDS, RENEW_DEADLINE_SECONDS, RENEW_SECONDS
from tests.unit.operator.fakes import Clock, FakeKube


class World:
    def __init__(self) -> None:
        self.kube = FakeKube()
        self.clock = Clock()

    def replica(self, pod_name: str = "operator-a") -> Leadership:
        return Leadership(self.kube, "sys", "lease", pod_name, self.clock)

    async def leader(self) -> Leadership:
        replica = self.replica()
        await replica._round()
        assert replica.leads
        return replica

    @property
    def spec(self) -> Object:
        spec: Object = self.kube.objects["leases", "sys", "lease"]["spec"]
        return spec


@pytest.fixture
def world() -> World:
    return World()


def test_the_clock_continues_and_only_forward() -> None:
    before = boot_seconds()
    assert boot_seconds() >= before > 0


async def test_the_lease_names_the_pod_of_its_holder(world: World) -> None:
    await world.leader()
    assert world.spec["holderIdentity"].startswith("operator-a_")


async def test_a_container_that_is_started_again_does_not_take_itself_for_the_one_before(world: World) -> None:
    await world.leader()
    again = world.replica()
    await again._round()
    assert not again.leads


async def test_a_leader_renews_without_reading(world: World) -> None:
    replica = await world.leader()
    world.kube.calls.clear()
    world.clock.now += RENEW_SECONDS
    assert await replica._round() == RENEW_SECONDS
    assert world.kube.calls == [("replace", "leases", "lease")]


async def test_a_standby_takes_over_when_the_leader_is_gone(world: World) -> None:
    await world.leader()
    standby = world.replica("operator-b")
    assert await standby._round() == POLL_SECONDS
    assert not standby.leads
    world.clock.now += LEASE_SECONDS
    await standby._round()
    assert standby.leads


async def test_a_label_that_somebody_sets_on_the_lease_costs_no_lead(world: World) -> None:
    replica = await world.leader()
    body = world.kube.objects["leases", "sys", "lease"]
    world.kube.put(LEASES, {**body, "metadata": {**body["metadata"], "labels": {"a": "b"}}})
    for _ in range(2):
        await replica._round()
    world.clock.now += RENEW_DEADLINE_SECONDS - 0.1
    assert replica.leads
    assert world.kube.objects["leases", "sys", "lease"]["metadata"]["labels"] == {"a": "b"}


async def test_a_renewal_whose_answer_was_lost_is_made_again(world: World) -> None:
    replica = await world.leader()
    replace = world.kube.replace

    async def answered_by_nobody(*arguments: object) -> Object:
        await replace(*arguments)  # type: ignore[arg-type]
        raise Unreachable("reset")

    world.kube.replace = answered_by_nobody  # type: ignore[method-assign,assignment]
    world.clock.now += RENEW_SECONDS
    await replica._round()
    world.kube.replace = replace  # type: ignore[method-assign]
    world.clock.now += 1
    await replica._round()
    world.clock.now += RENEW_DEADLINE_SECONDS - 0.1
    assert replica.leads


async def test_a_pause_that_is_longer_than_the_deadline_ends_the_lead(world: World) -> None:
    replica = await world.leader()
    replica.check()
    world.clock.now += RENEW_DEADLINE_SECONDS
    with pytest.raises(LeadershipLost, match=r"sys/lease was not renewed for 7 seconds"):
        replica.check()


async def test_a_lost_lead_ends_the_loop_and_does_not_write_again(world: World) -> None:
    replica = await world.leader()
    world.clock.now += RENEW_DEADLINE_SECONDS
    world.kube.calls.clear()
    with pytest.raises(LeadershipLost):
        await asyncio.wait_for(replica.run(), 60)
    assert [verb for verb, _, _ in world.kube.calls if verb != "get"] == []


async def test_a_standby_outlives_an_outage(world: World) -> None:
    standby = world.replica()
    world.kube.refuse["get", "leases"] = Unreachable("down")
    assert await standby._round() == POLL_SECONDS
    world.clock.now += 1000
    world.kube.refuse.clear()
    await standby._round()
    assert standby.leads


async def test_a_request_that_hangs_is_given_up_in_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = await world.leader()
    monkeypatch.setattr(leadership, "_REQUEST_SECONDS", 0.01)

    async def hang(*_: object) -> Object:
        await asyncio.Event().wait()
        raise AssertionError

    world.kube.replace = hang  # type: ignore[method-assign]
    assert await replica._round() == POLL_SECONDS


async def test_the_winning_is_reported_once_it_is_won(world: World) -> None:
    replica = world.replica()
    waiting = asyncio.create_task(replica.won())
    await asyncio.sleep(0)
    assert not waiting.done()
    await replica._round()
    await asyncio.wait_for(waiting, 60)


async def test_a_released_lease_is_taken_over_at_once(world: World) -> None:
    replica, standby = await world.leader(), world.replica("operator-b")
    await standby._round()
    await replica.release()
    assert not replica.leads
    await standby._round()
    assert standby.leads


async def test_after_the_release_nothing_is_written(world: World) -> None:
    replica = await world.leader()
    await replica.release()
    world.kube.calls.clear()
    await asyncio.wait_for(replica.run(), 60)
    assert world.kube.calls == []


async def test_a_standby_releases_nothing(world: World) -> None:
    await world.leader()
    standby = world.replica("operator-b")
    await standby._round()
    await standby.release()
    assert world.spec["holderIdentity"].startswith("operator-a_")


async def test_a_release_that_fails_is_left_to_expire(world: World) -> None:
    replica = await world.leader()
    world.kube.refuse["replace", "leases"] = Conflict(409, "Conflict", "changed")
    await replica.release()
    assert not replica.leads
