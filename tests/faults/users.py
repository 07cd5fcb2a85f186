"""Plays the users: there are always some jobs under way, each doing what its scenario says."""

import asyncio
from dataclasses import dataclass, field

from tests.faults.api import Api, Object, path
from tests.faults.observer import Observer
from tests.faults.scenario import scenario
from tests.faults.trainer import Bucket

# A list of a namespace's children is part of every pass.
_JOBS_PER_NAMESPACE = 20


@dataclass
class Users:
    """`uids` are the FineTuneJobs that should come to their end, in the order of their creation."""

    api: Api
    bucket: Bucket
    observer: Observer
    seed: int
    prefix: str
    uids: dict[str, tuple[str, str]] = field(default_factory=dict)
    created: int = 0
    _namespaces: set[str] = field(default_factory=set)

    async def keep_busy(self, live: int) -> None:
        """Create a job whenever fewer than `live` are unfinished, until cancelled."""
        while True:
            while sum(not self.observer.is_finished(uid) for uid in self.uids) < live:
                await self.create_next()
            await asyncio.sleep(0.2)

    async def create_next(self) -> None:
        """Create the next job of the seed."""
        namespace = f"{self.prefix}-{self.created // _JOBS_PER_NAMESPACE}"
        if namespace not in self._namespaces:
            await self.api.insist("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
            self._namespaces.add(namespace)
        self.created += 1
        await self._create(namespace, f"job-{self.created}", self.created)

    async def recreate(self, uid: str) -> None:
        """Delete a job and create another under its name at once."""
        namespace, name = self.uids.pop(uid)
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        await self.api.insist("DELETE", path("finetunejobs", namespace, name), body)
        self.created += 1
        await self._create(namespace, name, self.created)

    async def _create(self, namespace: str, name: str, number: int) -> None:
        found = scenario(self.seed, number)
        body: Object = {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": name},
            "spec": found.spec(),
        }
        url = path("finetunejobs", namespace)
        job = await self.api.insist("POST", url, body) or await self.api.insist("GET", f"{url}/{name}")
        assert job is not None, f"{namespace}/{name} could not be created"
        uid = job["metadata"]["uid"]
        self.uids[uid] = (namespace, name)
        await self.bucket.add(uid, found)
