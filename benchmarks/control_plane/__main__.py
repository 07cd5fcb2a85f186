"""Drives FineTuneJobs and plain Jobs to their end on a control plane of its own, and measures what the operator costs.

    python -m benchmarks.control_plane --jobs 300

Nodes and pods are played by kwok; etcd, API server, controller-manager, scheduler and operator are the real programs.
The last line has the figures that are promised; all of them go to control-plane.json and control-plane.svg.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks.control_plane import api, cluster, figures, load, stored
from benchmarks.control_plane.api import Api, Object
from benchmarks.control_plane.cluster import NAMESPACE, Cluster
from benchmarks.control_plane.load import FineTuneJobs, Kind, PlainJobs, Seen

from finetune_operator.control.lease import LEASE_SECONDS

_PACES = (10, 50)
_SETTLED_SHARE = 0.05
_PATIENCE_SECONDS = 900
_STORED_NAMESPACE = "stored"
_BESIDE_NAMESPACE = "beside"
_BATCH = 50
# Nodes whose leases were late in a burst are found not ready up to 50 s later, which changes their pods.
_QUIET_SECONDS = 75.0

T = TypeVar("T")


def main() -> None:
    """Run and write the figures."""
    parser = argparse.ArgumentParser(prog="benchmarks.control_plane", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--jobs", type=int, default=300, help="of each kind (default: %(default)s)")
    parser.add_argument(
        "--stored", type=int, default=10_000, help="FineTuneJobs that have ended (default: %(default)s)"
    )
    parser.add_argument("--idle-seconds", type=int, default=30, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent.parent)
    options = parser.parse_args()
    with cluster.running() as running:
        found = asyncio.run(_measure(running, options.jobs, options.stored, options.idle_seconds))
    (options.output / "control-plane.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.output / "control-plane.svg").write_text(figures.svg(found))
    print(figures.line(found))


async def _measure(running: Cluster, jobs: int, most_stored: int, idle_seconds: int) -> Object:
    async with api.connect(running.plane.kubeconfig.read_text()) as client:
        ours = FineTuneJobs(client, NAMESPACE)
        example, templates = await _told("one job of each kind", _example(client, ours))
        plain = PlainJobs(client, NAMESPACE, templates)
        await load.to_the_end(plain, 1)
        found: Object = {"machine": figures.machine(), "jobs": jobs, "pace": {}}
        for pace in _PACES:
            for kind in (ours, plain):
                what = f"{jobs} {kind.name} at {pace}/s, to the first pod"
                seen = await _told(what, load.to_the_first_pod(kind, jobs, partial(api.paced, per_second=pace)))
                found["pace"].setdefault(str(pace), {})[kind.name] = figures.percentiles(seen.seconds_to_pod())
                await _told("deleting them", _delete(client, running, kind))
        found["alone"] = await _alone(client, running, ours, plain, jobs)
        found["beside"] = await _beside(client, running, templates, jobs)
        found["stored"] = []
        running.plane.kubectl("create", "namespace", _STORED_NAMESPACE)
        count = 0
        for size in sorted({max(most_stored // 100, 1), max(most_stored // 10, 1), most_stored}):
            found["stored"].append(await _with_stored(client, running, ours, example, count, size))
            count = size
        found |= await _idle(running, ours, jobs, idle_seconds)
        return found


async def _told(what: str, work: Awaitable[T]) -> T:
    began = time.monotonic()
    print(f"  {what:<60}", end="", flush=True)
    result = await work
    print(f"{time.monotonic() - began:7.1f} s", flush=True)
    return result


async def _example(client: Api, ours: FineTuneJobs) -> tuple[Object, dict[str, Object]]:
    """Let one FineTuneJob run; return it, and what its Jobs looked like."""
    await load.to_the_end(ours, 1)
    job = (await client.request("GET", api.FINETUNE_JOBS.format(NAMESPACE)))["items"][0]
    jobs = (await client.request("GET", api.JOBS.format(NAMESPACE)))["items"]
    return job, {j["metadata"]["labels"]["finetune.dev/stage"]: j["spec"] for j in jobs}


async def _alone(client: Api, running: Cluster, ours: FineTuneJobs, plain: PlainJobs, jobs: int) -> Object:
    """Each kind alone, half of it at a time, so that neither has the better share of what else the machine does."""
    half = max(jobs // 2, 1)
    seconds = {ours.name: 0.0, plain.name: 0.0}
    machine = {ours.name: 0.0, plain.name: 0.0}
    cost: list[Object] = []
    for kind in (ours, plain, plain, ours):
        before, began = await _cost(client, running), running.machine_seconds()
        seen: Seen = await _told(f"{half} {kind.name} to the end", load.to_the_end(kind, half))
        seconds[kind.name] += seen.seconds_in_all()
        await _settled(running)
        machine[kind.name] += running.machine_seconds() - began
        if kind is ours:
            cost.append(figures.each(before, await _cost(client, running), half))
    rates = {name: 2 * half / total for name, total in seconds.items()}
    return {
        "jobs_per_second": rates,
        "ratio": rates[ours.name] / rates[plain.name],
        "machine_cpu_ms": {name: 1000 * total / (2 * half) for name, total in machine.items()},
        "per_job": {member: sum(c[member] for c in cost) / len(cost) for member in cost[0]},
    }


async def _beside(client: Api, running: Cluster, templates: dict[str, Object], jobs: int) -> Object:
    """Both kinds at the same time, so that each has the same control plane with the same work."""
    # Of its own: what others left behind costs whoever lists a namespace.
    running.plane.kubectl("create", "namespace", _BESIDE_NAMESPACE)
    ours, plain = FineTuneJobs(client, _BESIDE_NAMESPACE), PlainJobs(client, _BESIDE_NAMESPACE, templates)
    before = await _cost(client, running)
    what = f"{jobs} {ours.name} beside {jobs} {plain.name}, to the end"
    both = asyncio.gather(load.to_the_end(ours, jobs), load.to_the_end(plain, jobs))
    seen = dict(zip((ours.name, plain.name), await _told(what, both), strict=True))
    rates = {name: jobs / one.seconds_in_all() for name, one in seen.items()}
    await _settled(running)
    return {
        "jobs_per_second": rates,
        "ratio": rates[ours.name] / rates[plain.name],
        "per_job": figures.each(before, await _cost(client, running), jobs),
    }


async def _cost(client: Api, running: Cluster) -> Object:
    return {
        "cpu_ms": running.cpu_seconds() * 1000,
        "requests": cluster.requests(await client.metrics()),
        "passes": running.passes(),
    }


async def _with_stored(
    client: Api, running: Cluster, ours: FineTuneJobs, example: Object, first: int, last: int
) -> Object:
    """Store more FineTuneJobs while the operator is away, start it, and see what a batch of new ones costs."""
    running.operator.stop()
    await _told(f"storing FineTuneJobs up to {last}", stored.store(client, _STORED_NAMESPACE, example, first, last))
    total = len((await client.request("GET", "/apis/finetune.dev/v1alpha1/finetunejobs"))["items"])
    began = time.monotonic()
    before = await client.metrics()
    running.operator.start()
    await _told("the operator starts and knows them all", _knows(running, total))
    found: Object = {
        "stored": last,
        "start_seconds": time.monotonic() - began,
        "start_cpu_seconds": running.cpu_seconds(),
        "start_requests": cluster.requests(await client.metrics()) - cluster.requests(before),
    }
    # A new leader lists once more that long after its first list, and with many that takes a while.
    await _told("and lists them once more", asyncio.sleep(3 * LEASE_SECONDS))
    await _settled(running)
    cost = await _cost(client, running)
    await _told(f"{_BATCH} FineTuneJobs to the end", load.to_the_end(ours, _BATCH))
    await _settled(running)
    found["per_job"] = figures.each(cost, await _cost(client, running), _BATCH)
    found["rss_mib"], found["peak_mib"] = running.memory_mib()
    return found


async def _knows(running: Cluster, total: int) -> None:
    async def look() -> bool:
        return running.counted_jobs() >= total

    await _until(look)


async def _until(look: Callable[[], Awaitable[bool]]) -> None:
    began = time.monotonic()
    while not await look():
        assert time.monotonic() < began + _PATIENCE_SECONDS, "what was waited for did not come"
        await asyncio.sleep(0.2)


async def _settled(running: Cluster) -> None:
    """Wait until the operator has nothing more to do."""

    async def rests() -> bool:
        before = running.cpu_seconds()
        await asyncio.sleep(1)
        return running.cpu_seconds() - before < _SETTLED_SHARE

    await _until(rests)


async def _idle(running: Cluster, ours: FineTuneJobs, jobs: int, seconds: int) -> Object:
    """Memory with all that is stored and as many jobs running, and what the operator does while nothing happens."""
    work = load.to_the_first_pod(ours, jobs, api.side_by_side)
    await _told(f"{jobs} FineTuneJobs that run on", work)
    await _told("all is quiet", asyncio.sleep(_QUIET_SECONDS))
    await _settled(running)
    before = running.cpu_seconds()
    await _told("nothing happens", asyncio.sleep(seconds))
    share = (running.cpu_seconds() - before) / seconds
    now, most = running.memory_mib()
    return {"idle_cpu_percent": 100 * share, "rss_mib": now, "peak_mib": most}


async def _delete(client: Api, running: Cluster, kind: Kind) -> None:
    """Delete what was created last of a kind, with all that came of it."""
    path = kind.path.format(kind.namespace)
    await client.request("DELETE", f"{path}?labelSelector=benchmark-hold&propagationPolicy=Background")
    pods = f"{api.PODS.format(NAMESPACE)}?labelSelector=benchmark-hold&limit=1"

    async def gone() -> bool:
        return not (await client.request("GET", pods))["items"]

    await _until(gone)
    await _settled(running)


if __name__ == "__main__":
    main()
