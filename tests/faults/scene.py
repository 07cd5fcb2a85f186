"""All that a fault may touch."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from local_platform.control_plane import ControlPlane
from tests.faults.api import Api
from tests.faults.kubelet import Kubelet, Run
from tests.faults.nodes import Nodes
from tests.faults.observer import Observer
from tests.faults.operators import Operators
from tests.faults.trainer import Bucket
from tests.faults.users import Users

Found = TypeVar("Found")

_PATIENCE_SECONDS = 30.0
# Of the faults that cost a job a retry: each further one doubles the pause before the next attempt.
_MOST_RETRIES = 3


@dataclass
class Scene:
    """The parts of one run."""

    plane: ControlPlane
    api: Api
    nodes: Nodes
    bucket: Bucket
    kubelet: Kubelet
    observer: Observer
    operators: Operators
    users: Users
    # How many retries the faults have cost each FineTuneJob, by uid.
    costs: Counter[str] = field(default_factory=Counter)
    starved: set[str] = field(default_factory=set)
    control_plane_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def running_pod(self, choice: float, fits: Callable[[Run], bool] = lambda _: True) -> Run | None:
        """Return a pod that runs, once there is one that a fault may cost a retry."""
        run = await self._wait_for(choice, lambda: self._running(fits))
        if run is not None:
            self.costs[run.container.uid] += 1
        return run

    def _running(self, fits: Callable[[Run], bool]) -> list[Run]:
        stored = self.bucket.by_uid
        found = [
            run
            for run in self.kubelet.runs.values()
            if run.running
            and self.costs[run.container.uid] < _MOST_RETRIES
            and stored[run.container.uid].scenario.retries
            and fits(run)
        ]
        return sorted(found, key=lambda run: run.name)

    async def finetune_job(self, choice: float, fits: Callable[[str], bool]) -> str | None:
        """Return the uid of a FineTuneJob that fits, once there is one."""
        return await self._wait_for(choice, lambda: [uid for uid in self.users.uids if fits(uid)])

    async def _wait_for(self, choice: float, look: Callable[[], Sequence[Found]]) -> Found | None:
        deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        while not (found := look()):
            if asyncio.get_running_loop().time() > deadline:
                return None
            await asyncio.sleep(0.1)
        return found[int(choice * len(found)) % len(found)]
