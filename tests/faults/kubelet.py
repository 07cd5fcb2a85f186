"""Plays scheduler and kubelet: each pod of a FineTuneJob gets a node, a container with the fake trainer, an end."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from finetune_api.spec import Stage
from tests.faults import trainer
from tests.faults.api import Api, Object, path
from tests.faults.nodes import Nodes
from tests.faults.trainer import KILLED, Bucket, Container, Team

_SELECTOR = "app.kubernetes.io/managed-by=finetune-operator"


@dataclass
class Run:
    """One pod on its node."""

    namespace: str
    name: str
    # Its Job.
    owner: str
    container: Container
    node: str = ""
    running: bool = False
    # What faults do to the report of its end.
    message: str | None = None
    reason: str | None = None
    clock: timedelta = timedelta()
    killed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Kubelet:
    """All kubelets. `runs` are the pods that have not ended, by their uid."""

    def __init__(self, api: Api, nodes: Nodes, bucket: Bucket) -> None:
        self._api = api
        self._nodes = nodes
        self._bucket = bucket
        self.runs: dict[str, Run] = {}
        # By the uid of their Job.
        self._teams: dict[str, Team] = {}
        self._news: set[asyncio.Task[None]] = set()

    async def work(self) -> None:
        """Serve pods until cancelled."""
        try:
            await self._api.follow("/api/v1/pods", _SELECTOR, self._listed, self._changed)
        finally:
            for run in self.runs.values():
                if run.task:
                    run.task.cancel()

    def _listed(self, pods: list[Object]) -> None:
        there = {pod["metadata"]["uid"] for pod in pods}
        for uid in self.runs.keys() - there:
            self.runs[uid].killed.set()
        for pod in pods:
            self._changed("ADDED", pod)

    def _changed(self, kind: str, pod: Object) -> None:
        metadata = pod["metadata"]
        run = self.runs.get(metadata["uid"])
        if kind == "DELETED":
            if run:
                run.killed.set()
            return
        if run is None:
            labels = metadata["labels"]
            uid, stage = labels["finetune.dev/job-uid"], labels["finetune.dev/stage"]
            if pod["status"].get("phase") in ("Succeeded", "Failed"):
                return
            run = self._admit(pod, uid, stage)
        if metadata.get("deletionTimestamp"):
            news = asyncio.ensure_future(self._deleted(run, at_once=metadata["deletionGracePeriodSeconds"] == 0))
            self._news.add(news)
            news.add_done_callback(self._news.discard)

    def _admit(self, pod: Object, uid: str, stage: Stage) -> Run:
        metadata = pod["metadata"]
        labels, arguments = metadata["labels"], pod["spec"]["containers"][0]["args"]
        size = int(arguments[arguments.index("--nodes") + 1]) if "--nodes" in arguments else 1
        index = int(labels.get("batch.kubernetes.io/job-completion-index", 0))
        team = self._teams.setdefault(labels["batch.kubernetes.io/controller-uid"], Team(size)) if size > 1 else Team(1)
        container = Container(uid, stage, "--report" in arguments, index, team)
        run = Run(metadata["namespace"], metadata["name"], labels["batch.kubernetes.io/job-name"], container)
        self.runs[metadata["uid"]] = run
        run.task = asyncio.ensure_future(self._serve(metadata["uid"], run, pod))
        return run

    async def _deleted(self, run: Run, *, at_once: bool) -> None:
        """A node without network learns of it later."""
        if run.node:
            await self._nodes.reachable(run.node)
        (run.killed if at_once else run.container.stopping).set()

    async def _serve(self, uid: str, run: Run, pod: Object) -> None:
        life = asyncio.ensure_future(self._life(uid, run, pod))
        killed = asyncio.ensure_future(run.killed.wait())
        try:
            await asyncio.wait({life, killed}, return_when=asyncio.FIRST_COMPLETED)
            if life.done():
                life.result()
                return
            life.cancel()
            # Also a pod deleted by force may still be there, held by a finalizer, and is reported as failed.
            await self._report_end(uid, run, KILLED, "")
        finally:
            life.cancel()
            killed.cancel()
            del self.runs[uid]

    async def _life(self, uid: str, run: Run, pod: Object) -> None:
        run.node = pod["spec"].get("nodeName") or self._nodes.choose(pod)
        if not pod["spec"].get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": run.node}
            body = {"metadata": {"name": run.name, "uid": uid}, "target": target}
            await self._api.insist("POST", path("pods", run.namespace, run.name, "binding"), body)
        await self._nodes.reachable(run.node)
        began = _now() + run.clock
        running = _container({"running": {"startedAt": _text(began)}}, ready=True)
        await self._set(uid, run, {"phase": "Running", "startTime": _text(began), "containerStatuses": [running]})
        await self._bucket.knows(run.container.uid)
        run.running = True
        code, message = await trainer.play(run.container, self._bucket)
        await self._nodes.reachable(run.node)
        await self._report_end(uid, run, code, message if run.message is None else run.message)

    async def _report_end(self, uid: str, run: Run, code: int, message: str) -> None:
        state = {
            "exitCode": code,
            "reason": run.reason or ("Completed" if code == 0 else "Error"),
            "message": message,
            "startedAt": _text(_now() + run.clock),
            "finishedAt": _text(_now() + run.clock * 2),
        }
        phase = "Failed" if code else "Succeeded"
        await self._set(uid, run, {"phase": phase, "containerStatuses": [_container({"terminated": state})]})
        if run.container.stopping.is_set():
            body = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
            await self._api.insist("DELETE", path("pods", run.namespace, run.name), body)

    async def _set(self, uid: str, run: Run, status: Object) -> None:
        body = {"metadata": {"uid": uid}, "status": status}
        await self._api.patch(path("pods", run.namespace, run.name, "status"), body)


def _container(state: Object, *, ready: bool = False) -> Object:
    fixed = {"name": "trainer", "image": "t", "imageID": "", "restartCount": 0}
    return {**fixed, "ready": ready, "started": ready, "state": state}


def _now() -> datetime:
    return datetime.now(UTC)


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
