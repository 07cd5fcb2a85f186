"""FineTuneJobs that have ended long ago: their final status is stored, their children are gone."""

from functools import partial

from benchmarks.control_plane import api
from benchmarks.control_plane.api import Api, Object


async def store(client: Api, namespace: str, example: Object, first: int, last: int) -> None:
    """Store copies of a FineTuneJob that has ended, named by their numbers, `last` not included."""
    path = api.FINETUNE_JOBS.format(namespace)

    async def create(name: str) -> None:
        body = {member: example[member] for member in ("apiVersion", "kind", "spec")}
        await client.request("POST", path, body | {"metadata": {"name": name}})
        patch = {"status": example["status"]}
        await client.request("PATCH", f"{path}/{name}/status", patch, "application/merge-patch+json")

    await api.side_by_side([partial(create, f"stored-{number}") for number in range(first, last)])
