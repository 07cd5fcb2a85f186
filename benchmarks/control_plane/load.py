"""The two kinds of work that are compared: FineTuneJobs, and plain Jobs, three one after another."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.control_plane import api
from benchmarks.control_plane.api import Api, Object
from benchmarks.control_plane.pods import HOLD_LABEL

from finetune_api.spec import STAGES
from finetune_operator.names import JOB_LABEL, STAGE_LABEL

RUN_LABEL = "benchmark-run"
_PLAIN_LABEL = "benchmark-job"
_SPEC: Object = {
    "model": {"s3": {"uri": "s3://models/llama/"}},
    "dataset": {"sources": [{"s3": {"uri": "s3://data/train.jsonl"}}]},
    "output": {"s3": {"uri": "s3://results/", "credentialsSecretRef": {"name": "s3"}}},
}

Create = Callable[[], Awaitable[Any]]
Send = Callable[[Sequence[Create]], Awaitable[None]]
"""How the creations are sent: `api.side_by_side` or at a pace."""


@dataclass
class Seen:
    """When things happened, by the name of what they happened to."""

    applied: dict[str, float] = field(default_factory=dict)
    pods: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)

    def seconds_to_pod(self) -> list[float]:
        """From the request that creates a job to the news of its first pod, sorted."""
        return sorted(self.pods[name] - self.applied[name] for name in self.pods)

    def seconds_in_all(self) -> float:
        """From the first request to the news that the last job has ended."""
        return max(self.ended.values()) - min(self.applied.values())


class Kind(Protocol):
    """One of the two."""

    client: Api
    namespace: str
    name: str
    # The path of what is created.
    path: str
    # The label by which a pod tells the name of its job.
    job_label: str

    def create(self, name: str, run: str, *, hold: bool) -> Awaitable[Any]:
        """Create one."""

    async def until_ended(self, run: str, seen: Seen, count: int) -> None:
        """Follow the jobs of a run, do what is to be done for them, and return when all have succeeded."""


@dataclass
class FineTuneJobs:
    """The operator does everything."""

    client: Api
    namespace: str
    name: str = "FineTuneJobs"
    path: str = api.FINETUNE_JOBS
    job_label: str = JOB_LABEL

    def create(self, name: str, run: str, *, hold: bool = False) -> Awaitable[Any]:
        """Create one."""
        labels = {RUN_LABEL: run} | ({HOLD_LABEL: "true"} if hold else {})
        body = {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": name, "labels": labels},
            "spec": {**_SPEC, "compute": {"podLabels": labels}},
        }
        return self.client.request("POST", self.path.format(self.namespace), body)

    async def until_ended(self, run: str, seen: Seen, count: int) -> None:
        """Only wait."""
        async for job in self.client.watch(self.path.format(self.namespace), f"{RUN_LABEL}={run}"):
            conditions = {c["type"]: c for c in (job.get("status") or {}).get("conditions") or []}
            if conditions.get("Finished", {}).get("status") == "True":
                assert conditions["Succeeded"]["status"] == "True", conditions
                seen.ended.setdefault(job["metadata"]["name"], time.monotonic())
            if len(seen.ended) == count:
                return


@dataclass
class PlainJobs:
    """Jobs with the pod templates of the three stages; the next is created when one is complete."""

    client: Api
    namespace: str
    templates: dict[str, Object]
    name: str = "plain Jobs"
    path: str = api.JOBS
    job_label: str = _PLAIN_LABEL

    def create(self, name: str, run: str, *, hold: bool = False) -> Awaitable[Any]:
        """Create the first of three."""
        return self._create(name, run, STAGES[0], hold=hold)

    def _create(self, name: str, run: str, stage: str, *, hold: bool = False) -> Awaitable[Any]:
        labels = {RUN_LABEL: run, _PLAIN_LABEL: name, STAGE_LABEL: stage} | ({HOLD_LABEL: "true"} if hold else {})
        template = {"metadata": {"labels": labels}, "spec": self.templates[stage]["template"]["spec"]}
        body = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": f"{name}-{stage}", "labels": labels},
            "spec": {
                "backoffLimit": 0,
                "podFailurePolicy": self.templates[stage]["podFailurePolicy"],
                "template": template,
            },
        }
        return self.client.request("POST", self.path.format(self.namespace), body)

    async def until_ended(self, run: str, seen: Seen, count: int) -> None:
        """Create what follows."""
        done: set[str] = set()
        async with asyncio.TaskGroup() as group:
            async for job in self.client.watch(self.path.format(self.namespace), f"{RUN_LABEL}={run}"):
                conditions = {c["type"]: c for c in job["status"].get("conditions") or []}
                if job["metadata"]["name"] in done or conditions.get("Complete", {}).get("status") != "True":
                    continue
                done.add(job["metadata"]["name"])
                labels = job["metadata"]["labels"]
                following = STAGES[STAGES.index(labels[STAGE_LABEL]) + 1 :]
                if following:
                    group.create_task(_awaited(self._create(labels[_PLAIN_LABEL], run, following[0])))
                else:
                    seen.ended[labels[_PLAIN_LABEL]] = time.monotonic()
                if len(seen.ended) == count:
                    return


_runs = itertools.count()


async def to_the_end(kind: Kind, count: int) -> Seen:
    """Create that many at once and see each of them succeed."""
    run, seen = f"run-{next(_runs)}", Seen()
    following = asyncio.create_task(kind.until_ended(run, seen, count))
    await api.side_by_side(_creations(kind, run, count, seen, hold=False))
    await following
    return seen


async def to_the_first_pod(kind: Kind, count: int, send: Send) -> Seen:
    """Create that many, whose first pods then run on and on, and see each of these pods."""
    run, seen = f"run-{next(_runs)}", Seen()
    following = asyncio.create_task(_pods(kind, run, seen, count))
    await send(_creations(kind, run, count, seen, hold=True))
    await following
    return seen


def _creations(kind: Kind, run: str, count: int, seen: Seen, *, hold: bool) -> list[Create]:
    def creation(name: str) -> Create:
        def create() -> Awaitable[Any]:
            seen.applied[name] = time.monotonic()
            return kind.create(name, run, hold=hold)

        return create

    return [creation(f"{run}-{number}") for number in range(count)]


async def _pods(kind: Kind, run: str, seen: Seen, count: int) -> None:
    async for pod in kind.client.watch(api.PODS.format(kind.namespace), f"{RUN_LABEL}={run}"):
        seen.pods.setdefault(pod["metadata"]["labels"][kind.job_label], time.monotonic())
        if len(seen.pods) == count:
            return


async def _awaited(call: Awaitable[Any]) -> None:
    await call
