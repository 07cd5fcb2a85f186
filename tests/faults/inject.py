"""Carries out a fault. Each injector returns whom it met, once the fault is over."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from tests.faults.api import path
from tests.faults.kubelet import Run
from tests.faults.operators import Replica
from tests.faults.proxy import Trouble
from tests.faults.scene import Scene
from tests.faults.schedule import Fault

NOBODY = "nobody there"
Injector = Callable[[Scene, Fault], Awaitable[str]]


async def inject(scene: Scene, fault: Fault) -> str:
    """Let a fault happen; return whom it met."""
    return await INJECTORS[fault.kind](scene, fault)


# Processes.


def _replica(scene: Scene, fault: Fault) -> Replica:
    replicas = scene.operators.replicas
    return replicas[int(fault.choice * len(replicas))]


async def _operator_kill(scene: Scene, fault: Fault) -> str:
    replica = _replica(scene, fault)
    async with replica.lock:
        await scene.operators.kill(replica, fault.seconds)
    return replica.name


async def _operator_freeze(scene: Scene, fault: Fault) -> str:
    replica = _replica(scene, fault)
    async with replica.lock:
        await scene.operators.freeze(replica, fault.seconds)
    return replica.name


def _component(name: str, *, kill: bool) -> Injector:
    async def restart(scene: Scene, fault: Fault) -> str:
        async with scene.control_plane_lock:
            if kill:
                await asyncio.to_thread(scene.plane.signal, name, "KILL")
                await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(scene.plane.restart, name)
        return name

    return restart


# The network between operators and API server.


def _trouble(begin: Callable[[Trouble, Fault], None], end: Callable[[Trouble, Fault], None]) -> Injector:
    async def disturb(scene: Scene, fault: Fault) -> str:
        replicas = scene.operators.replicas
        # One of them, or all.
        number = int(fault.choice * (len(replicas) + 1))
        met = replicas[number : number + 1] or replicas
        for replica in met:
            begin(replica.proxy.trouble, fault)
        await asyncio.sleep(fault.seconds)
        for replica in met:
            end(replica.proxy.trouble, fault)
        return ", ".join(replica.name for replica in met)

    return disturb


def _counted(member: str) -> Injector:
    def add(amount: int) -> Callable[[Trouble, Fault], None]:
        return lambda trouble, _: setattr(trouble, member, getattr(trouble, member) + amount)

    return _trouble(add(1), add(-1))


def _status(code: int) -> Injector:
    return _trouble(lambda t, _: t.statuses.append(code), lambda t, _: t.statuses.remove(code))


async def _watches_dropped(scene: Scene, fault: Fault) -> str:
    for replica in scene.operators.replicas:
        replica.proxy.drop_watches()
    return "all operators"


async def _watches_gone(scene: Scene, fault: Fault) -> str:
    gone = asyncio.ensure_future(_counted("gone")(scene, fault))
    await _watches_dropped(scene, fault)
    return await gone


# Pods, nodes and the bucket.


def _on_pod(act: Callable[[Scene, Fault, Run], Awaitable[None]], fits: Callable[[Run], bool] | None = None) -> Injector:
    async def find(scene: Scene, fault: Fault) -> str:
        run = await scene.running_pod(fault.choice, fits or (lambda _: True))
        if run is None:
            return NOBODY
        await act(scene, fault, run)
        return run.name

    return find


def _delete_pod(grace_seconds: int | None) -> Injector:
    async def delete(scene: Scene, fault: Fault, run: Run) -> None:
        body = {} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        await scene.api.insist("DELETE", path("pods", run.namespace, run.name), body)

    # A pod deleted by force keeps running on a node without network, and nobody can know.
    return lambda scene, fault: _on_pod(delete, lambda run: scene.nodes.is_reachable(run.node))(scene, fault)


async def _evict(scene: Scene, fault: Fault, run: Run) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": run.name, "namespace": run.namespace}}
    await scene.api.insist("POST", path("pods", run.namespace, run.name, "eviction"), body)


async def _lose_node(scene: Scene, fault: Fault, run: Run) -> None:
    await scene.nodes.lose(run.node, fault.seconds)


def _exit(code: int) -> Injector:
    async def crash(scene: Scene, fault: Fault, run: Run) -> None:
        if not run.container.crash.done():
            run.container.crash.set_result(code)

    return _on_pod(crash)


async def _out_of_memory(scene: Scene, fault: Fault) -> str:
    async def crash(scene: Scene, fault: Fault, run: Run) -> None:
        if not run.container.crash.done():
            scene.starved.add(run.container.uid)
            run.reason = "OOMKilled"
            run.container.crash.set_result(137)

    # Twice in a row would be the end of the job, and rightly.
    return await _on_pod(crash, lambda run: run.container.uid not in scene.starved)(scene, fault)


def _message(text: str) -> Injector:
    async def spoil(scene: Scene, fault: Fault, run: Run) -> None:
        run.message = text

    return _on_pod(spoil)


async def _wrong_clock(scene: Scene, fault: Fault, run: Run) -> None:
    run.clock = timedelta(days=4000 if fault.choice < 0.5 else -4000)


async def _storage_refuses(scene: Scene, fault: Fault) -> str:
    scene.costs.update({run.container.uid for run in scene.kubelet.runs.values()})
    scene.bucket.reachable = False
    await asyncio.sleep(fault.seconds)
    scene.bucket.reachable = True
    return "all pods"


async def _storage_slow(scene: Scene, fault: Fault) -> str:
    scene.bucket.slowness *= 4
    await asyncio.sleep(fault.seconds)
    scene.bucket.slowness /= 4
    return "all pods"


# Users.


def _delete_job(*policies: str) -> Injector:
    async def delete(scene: Scene, fault: Fault, run: Run) -> None:
        policy = policies[int(fault.choice * len(policies))]
        url = path("jobs", run.namespace, run.owner)
        await scene.api.insist("DELETE", url, {"propagationPolicy": policy})

    return _on_pod(delete)


async def _finished_job_deleted(scene: Scene, fault: Fault) -> str:
    uid = await scene.finetune_job(fault.choice, scene.observer.is_finished)
    if uid is None:
        return NOBODY
    namespace, name = scene.users.uids[uid]
    url = path("jobs", namespace)
    await scene.api.insist(
        "DELETE", f"{url}?labelSelector=finetune.dev/job-uid={uid}", {"propagationPolicy": "Background"}
    )
    return name


async def _config_map_deleted(scene: Scene, fault: Fault) -> str:
    uid = await scene.finetune_job(fault.choice, lambda uid: not scene.observer.is_finished(uid))
    if uid is None:
        return NOBODY
    namespace, name = scene.users.uids[uid]
    kind = "plan" if fault.choice < 0.7 else "ca"
    url = path("configmaps", namespace)
    found = await scene.api.items(f"{url}?labelSelector=finetune.dev/job-uid={uid}")
    names = [c["metadata"]["name"] for c in found if c["metadata"]["name"].startswith(f"{name}-{uid[:5]}-{kind}")]
    for child in names:
        await scene.api.insist("DELETE", f"{url}/{child}")
    return names[0] if names else NOBODY


def _on_finetune_job(
    act: Callable[[Scene, Fault, str, str], Awaitable[object]], fits: Callable[[Scene, str], bool]
) -> Injector:
    """`act` on a FineTuneJob that fits, given its uid and path."""

    async def find(scene: Scene, fault: Fault) -> str:
        uid = await scene.finetune_job(fault.choice, lambda uid: fits(scene, uid))
        if uid is None:
            return NOBODY
        namespace, name = scene.users.uids[uid]
        await act(scene, fault, uid, path("finetunejobs", namespace, name))
        return name

    return find


def _is_live(scene: Scene, uid: str) -> bool:
    return not scene.observer.is_finished(uid)


async def _edit_spec(scene: Scene, fault: Fault, _: str, url: str) -> None:
    edit = {
        "metadata": {"labels": {"edit": str(fault.number)}},
        "spec": {"retries": {"maximum": 15 + fault.number % 5}},
    }
    await scene.api.patch(url, edit)


async def _recreate(scene: Scene, _: Fault, uid: str, __: str) -> None:
    await scene.users.recreate(uid)


async def _suspend(scene: Scene, fault: Fault, _: str, url: str) -> None:
    await scene.api.patch(url, {"spec": {"suspend": True}})
    await asyncio.sleep(fault.seconds)
    await scene.api.patch(url, {"spec": {"suspend": False}})


async def _reopen(scene: Scene, fault: Fault, uid: str, url: str) -> None:
    """A user mends what made a job fail, and opens it again."""
    stored = scene.bucket.by_uid[uid]
    stored.scenario = stored.scenario.mended()
    scene.observer.reopened.add(uid)
    spec = {"retryGeneration": fault.number, "retries": {"maximum": stored.scenario.retries}}
    await scene.api.patch(url, {"spec": spec})


async def _expire(scene: Scene, _: Fault, __: str, url: str) -> None:
    """A finished job loses its children, by its own setting."""
    await scene.api.patch(url, {"spec": {"ttlSecondsAfterFinished": 0}})


INJECTORS: dict[str, Injector] = {
    "operator-kill": _operator_kill,
    "operator-freeze": _operator_freeze,
    "apiserver-kill": _component("apiserver", kill=True),
    "apiserver-restart": _component("apiserver", kill=False),
    "etcd-kill": _component("etcd", kill=True),
    "controller-manager-kill": _component("controller-manager", kill=True),
    "watches-dropped": _watches_dropped,
    "watches-gone": _watches_gone,
    "too-many-requests": _status(429),
    "internal-errors": _status(500),
    "slow-answers": _trouble(lambda t, f: t.delays.append(f.seconds), lambda t, f: t.delays.remove(f.seconds)),
    "requests-lost": _counted("requests_lost"),
    "answers-lost": _counted("answers_lost"),
    "pod-deleted": _delete_pod(None),
    "pod-force-deleted": _delete_pod(0),
    "pod-evicted": _on_pod(_evict),
    "node-lost": _on_pod(_lose_node),
    "storage-refuses": _storage_refuses,
    "storage-slow": _storage_slow,
    "exit-1": _exit(1),
    "exit-75": _exit(75),
    "exit-80": _exit(80),
    "exit-137": _exit(137),
    "out-of-memory": _out_of_memory,
    "message-lost": _message(""),
    "message-garbled": _message('{"stage": "tra'),
    "clock-wrong": _on_pod(_wrong_clock),
    "job-deleted": _delete_job("Background", "Foreground"),
    "job-orphaned": _delete_job("Orphan"),
    "finished-job-deleted": _finished_job_deleted,
    "config-map-deleted": _config_map_deleted,
    "spec-edited": _on_finetune_job(_edit_spec, lambda scene, uid: bool(scene.bucket.by_uid[uid].scenario.retries)),
    "recreated": _on_finetune_job(_recreate, _is_live),
    "suspended": _on_finetune_job(_suspend, _is_live),
    "reopened": _on_finetune_job(_reopen, lambda scene, uid: scene.observer.has_failed(uid)),
    "expired": _on_finetune_job(_expire, lambda scene, uid: scene.observer.is_finished(uid)),
}
