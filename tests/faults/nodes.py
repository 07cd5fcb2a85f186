"""The nodes that the fake kubelets stand for: real objects, kept alive, which a fault may take away for a while."""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime

from tests.faults.api import Api, Object

NAMES = tuple(f"node-{n}" for n in range(8))
_HEARTBEAT_SECONDS = 10.0
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class Nodes:
    """All nodes. One that is lost is tainted, as the node controller does it, and its kubelet reaches nothing."""

    def __init__(self, api: Api, dice: random.Random) -> None:
        self._api = api
        self._dice = dice
        self._reachable = {name: asyncio.Event() for name in NAMES}

    async def create(self) -> None:
        """Register them."""
        for name in NAMES:
            await self._api.insist("POST", "/api/v1/nodes", {"kind": "Node", "metadata": {"name": name}})
            ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": _now(), "lastTransitionTime": _now()}
            await self._api.patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": [ready]}})
            await self._api.patch(f"/api/v1/nodes/{name}", {"spec": {"taints": None}})
            self._reachable[name].set()

    async def beat(self) -> None:
        """Renew their leases for ever, so that the node controller lets them be."""
        while True:
            for name in NAMES:
                spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": _now(micro=True)}
                if await self._api.patch(f"{_LEASES}/{name}", {"spec": spec}) is None:
                    await self._api.insist("POST", _LEASES, {"metadata": {"name": name}, "spec": spec})
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    def choose(self, pod: Object) -> str:
        """Return a node for a pod, as a scheduler does."""
        avoided = _avoided(pod["spec"])
        fit: Sequence[str] = [n for n in NAMES if self._reachable[n].is_set() and n not in avoided]
        return self._dice.choice(fit or NAMES)

    async def reachable(self, name: str) -> None:
        """Return when this node has a network."""
        await self._reachable[name].wait()

    def is_reachable(self, name: str) -> bool:
        """Whether this node has a network."""
        return self._reachable[name].is_set()

    async def lose(self, name: str, seconds: float) -> None:
        """Take a node away: its pods are evicted, and it learns of it when it is back."""
        self._reachable[name].clear()
        taint = {"key": "node.kubernetes.io/faults", "effect": "NoExecute"}
        await self._api.patch(f"/api/v1/nodes/{name}", {"spec": {"taints": [taint]}})
        await asyncio.sleep(seconds)
        await self._api.patch(f"/api/v1/nodes/{name}", {"spec": {"taints": None}})
        self._reachable[name].set()


def _avoided(pod_spec: Object) -> set[str]:
    affinity = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []
    return {name for term in terms for field in term.get("matchFields") or [] for name in field["values"]}


def _now(*, micro: bool = False) -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")
