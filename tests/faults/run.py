"""One run: parts up, faults one after another, then peace, then judgement."""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local_platform.operator_process import Installed
from tests.faults import judge
from tests.faults.api import Api
from tests.faults.inject import inject
from tests.faults.judge import Problem
from tests.faults.kubelet import Kubelet
from tests.faults.nodes import Nodes
from tests.faults.observer import Observer
from tests.faults.operators import Operators
from tests.faults.scene import Scene
from tests.faults.schedule import Fault
from tests.faults.trainer import Bucket
from tests.faults.users import Users

Say = Callable[[str], None]

# Faults at the same time: while the API server is away, more would only wait for it.
_AT_ONCE = 4


@dataclass(frozen=True)
class Options:
    """How one run is set up. Durations in seconds."""

    seed: int
    faults: Sequence[Fault]
    operators: int = 2
    # Unfinished jobs at any time.
    live: int = 20
    # How long everything may take to settle in the end: more than the operator's full list, which heals lost watches.
    settle: float = 420.0
    module: str = "finetune_operator"


@dataclass
class Verdict:
    """What became of the jobs."""

    faults: int
    jobs: int
    problems: list[Problem] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    def __str__(self) -> str:
        """The last line: how many jobs met with each kind of problem."""
        met = Counter(kind for kind, _ in {(p.kind, p.uid) for p in self.problems})
        return f"faults={self.faults} jobs={self.jobs} lost={met['lost']} doubled={met['doubled']} wrong={met['wrong']}"


async def run(installed: Installed, folder: Path, options: Options, say: Say) -> Verdict:
    """Make one run; logs of the operators go to `folder`."""
    async with _scene(installed, folder, options) as scene:
        async with asyncio.TaskGroup() as life:
            forever = [
                life.create_task(part)
                for part in (
                    scene.kubelet.work(),
                    scene.nodes.beat(),
                    scene.observer.work(),
                    scene.operators.supervise(),
                )
            ]
            busy = life.create_task(scene.users.keep_busy(options.live))
            # A fault before anything runs would be wasted.
            await scene.running_pod(0.0)
            began = time.monotonic()
            at_once = asyncio.Semaphore(_AT_ONCE)
            async with asyncio.TaskGroup() as faults:
                for fault in options.faults:
                    await asyncio.sleep(fault.pause)
                    await at_once.acquire()
                    task = faults.create_task(_one(scene, fault, len(options.faults), began, say))
                    task.add_done_callback(lambda _: at_once.release())
            busy.cancel()
            say(f"all faults are over after {time.monotonic() - began:.0f} s; everything may settle")
            await _settled(scene, options.settle, say)
            for task in forever:
                task.cancel()
        return _judged(scene, options, say)


@contextlib.asynccontextmanager
async def _scene(installed: Installed, folder: Path, options: Options) -> AsyncIterator[Scene]:
    dice = random.Random(f"dice {options.seed}")
    api = Api(json.loads(installed.plane.kubeconfig.read_text()))
    bucket, nodes = Bucket(), Nodes(api, dice)
    observer = Observer(api)
    operators = Operators(installed, api, folder, dice, options.module)
    try:
        await nodes.create()
        await operators.start(options.operators)
        users = Users(api, bucket, observer, options.seed, f"faults-{options.seed}")
        yield Scene(installed.plane, api, nodes, bucket, Kubelet(api, nodes, bucket), observer, operators, users)
    finally:
        await operators.stop()
        await api.close()


async def _one(scene: Scene, fault: Fault, count: int, began: float, say: Say) -> None:
    whom = await inject(scene, fault)
    finished = sum(scene.observer.is_finished(uid) for uid in scene.users.uids)
    live = len(scene.users.uids) - finished
    say(
        f"[{fault.number:>{len(str(count))}}/{count} {time.monotonic() - began:5.0f} s] {fault}: {whom} "
        f"({live} jobs live, {finished} finished)"
    )


async def _settled(scene: Scene, seconds: float, say: Say) -> None:
    began = time.monotonic()
    while left := [uid for uid in scene.users.uids if not scene.observer.is_finished(uid)]:
        if time.monotonic() - began > seconds:
            say(f"gave up waiting for {len(left)} jobs")
            return
        await asyncio.sleep(0.5)
    say(f"all jobs have finished {time.monotonic() - began:.0f} s later")
    # Whatever would still go wrong with finished jobs.
    await asyncio.sleep(5.0)


def _judged(scene: Scene, options: Options, say: Say) -> Verdict:
    verdict = Verdict(len(options.faults), len(scene.bucket.by_uid), list(scene.observer.problems))
    for uid in scene.users.uids:
        job = None if uid in scene.observer.gone else scene.observer.jobs.get(uid)
        verdict.problems += judge.at_the_end(uid, job, scene.bucket.by_uid[uid])
    for uid, stored in scene.bucket.by_uid.items():
        if uid not in scene.users.uids and stored.completed.get("train", 0) > 1:
            verdict.problems.append(Problem("doubled", uid, "deleted, but trained to the end twice before"))
    for problem in verdict.problems:
        found = scene.observer.jobs.get(problem.uid, {"metadata": {}})["metadata"]
        say(f"{problem.kind}: {found.get('namespace')}/{found.get('name')} {problem.uid}: {problem.sentence}")
        for line in scene.operators.logged(found.get("namespace", ""), found.get("name", "")):
            say(f"  {line}")
    hits = sum(replica.proxy.hits for replica in scene.operators.replicas)
    trained = sum(stored.completed.get("train", 0) for stored in scene.bucket.by_uid.values())
    say(f"{hits} requests were hit; {trained} trainings; operators ended by themselves: {scene.operators.endings}")
    return verdict
