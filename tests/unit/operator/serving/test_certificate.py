import base64
from typing import Any

import pytest

from finetune_operator.cluster.client import SECRETS
from finetune_operator.cluster.errors import KubeError
from finetune_operator.serving.certificate import Certificate
from tests.unit.operator.fakes import FakeKube

HOST = "finetune-operator.sys.svc"


class World:
    def __init__(self) -> None:
        self.kube = FakeKube()
        self.empty()

    def empty(self) -> None:
        self.kube.put(SECRETS, {"metadata": {"namespace": "sys", "name": "tls"}})

    def replica(self, *, leads: bool) -> Certificate:
        return Certificate(self.kube, self.kube, lambda: leads, "sys", "tls", HOST)

    @property
    def stored(self) -> dict[str, Any]:
        data: dict[str, Any] = self.kube.objects["secrets", "sys", "tls"]["data"]
        return data


@pytest.fixture
def world() -> World:
    return World()


async def test_the_leader_stores_the_certificate_and_a_standby_serves_the_same(world: World) -> None:
    leader, standby = world.replica(leads=True), world.replica(leads=False)
    await leader.refresh()
    await standby.refresh()
    assert standby.ca_pem == leader.ca_pem == base64.b64decode(world.stored["ca.crt"]).decode()


async def test_a_standby_waits_for_the_leader_and_writes_nothing(world: World) -> None:
    with pytest.raises(KubeError, match="the leader has not stored a certificate yet"):
        await world.replica(leads=False).refresh()
    assert [verb for verb, _, _ in world.kube.calls] == ["get"]


async def test_a_standby_serves_what_it_has_until_the_leader_has_replaced_it(world: World) -> None:
    leader, standby = world.replica(leads=True), world.replica(leads=False)
    await leader.refresh()
    await standby.refresh()
    old, context = standby.ca_pem, standby.context
    world.empty()
    await standby.refresh()
    assert standby.ca_pem == old
    await leader.refresh()
    await standby.refresh()
    assert standby.ca_pem != old
    assert standby.context is context
