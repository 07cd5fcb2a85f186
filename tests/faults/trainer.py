"""Plays the trainer, and the bucket that outlives its containers. It is honest: what it says it did, it did here."""

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any

from finetune_api import exit_codes
from finetune_api.exit_codes import ExitCode
from finetune_api.result import StageResult
from finetune_api.spec import Stage
from finetune_api.status import Artifact
from tests.faults.scenario import Scenario

STEPS = 10
# From the end of one that trains with others to theirs.
_AFTER_SECONDS = 1.0
KILLED = 137
_ARTIFACTS: dict[Stage, str] = {"train": "adapter", "export": "model.Q4_K_M.gguf"}


@dataclass
class Stored:
    """What the bucket has of one FineTuneJob, by its uid, and what was done to get there."""

    scenario: Scenario
    checkpoint: int = 0
    results: dict[Stage, StageResult] = field(default_factory=dict)
    # How often a stage worked to its end, rather than finding its result or being cut short.
    completed: dict[Stage, int] = field(default_factory=dict)


@dataclass
class Bucket:
    """All that is stored. It may be away or slow for a while."""

    by_uid: dict[str, Stored] = field(default_factory=dict)
    reachable: bool = True
    slowness: float = 1.0
    _added: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def add(self, uid: str, scenario: Scenario) -> None:
        """Keep a place for a FineTuneJob."""
        async with self._added:
            self.by_uid[uid] = Stored(scenario)
            self._added.notify_all()

    async def knows(self, uid: str) -> None:
        """Return once there is a place: a pod may run before the user sees that the job was created."""
        async with self._added:
            await self._added.wait_for(lambda: uid in self.by_uid)


@dataclass
class Team:
    """The containers of one Job that train together. They begin when all are there, and end when one of them has."""

    size: int
    all_there: asyncio.Event = field(default_factory=asyncio.Event)
    # The exit code of the first.
    ended: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _there: set[int] = field(default_factory=set)

    def arrive(self, index: int) -> None:
        """One is there."""
        self._there.add(index)
        if len(self._there) == self.size:
            self.all_there.set()

    def end(self, code: int) -> None:
        """One has ended."""
        if not self.ended.done():
            self.ended.set_result(code)


@dataclass
class Container:
    """One container. The kubelet and the faults act on it by its members."""

    uid: str
    stage: Stage
    report_only: bool
    # The first one does the work.
    index: int = 0
    team: Team = field(default_factory=lambda: Team(1))
    # SIGTERM came.
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    # Set: it ends with this code at once, and reports it if it is one of the trainer's.
    crash: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


async def play(container: Container, bucket: Bucket) -> tuple[int, str]:
    """Run until the end; return the exit code and the termination message. Cancelled: killed without a trace."""
    code = KILLED
    try:
        code, message = await _played(container, bucket)
        return code, message
    finally:
        container.team.end(code)


async def _played(container: Container, bucket: Bucket) -> tuple[int, str]:
    stored = bucket.by_uid[container.uid]
    container.team.arrive(container.index)
    work = asyncio.ensure_future(_work(container, bucket, stored))
    stopping = asyncio.ensure_future(container.stopping.wait())
    try:
        ends: set[asyncio.Future[Any]] = {work, stopping, container.crash, container.team.ended}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return _reported(container.stage, work.result())
        if container.team.ended.done():
            if container.team.ended.result() == 0:
                return 0, ""
            await asyncio.sleep(_AFTER_SECONDS)
            return ExitCode.PREEMPTED, _message(container.stage, ExitCode.PREEMPTED, stored.checkpoint)
        if container.crash.done():
            code = container.crash.result()
            known = code in exit_codes.REASONS
            return (code, _message(container.stage, code, stored.checkpoint)) if known else (code, "")
        # As the real one does: the checkpoint is saved, then it ends.
        work.cancel()
        await asyncio.sleep(stored.scenario.farewell)
        return ExitCode.PREEMPTED, _message(container.stage, ExitCode.PREEMPTED, stored.checkpoint)
    finally:
        work.cancel()
        stopping.cancel()


async def _work(container: Container, bucket: Bucket, stored: Stored) -> StageResult:
    stage = container.stage
    await container.team.all_there.wait()
    if container.index > 0:
        # It does as the first one does.
        await asyncio.Event().wait()
    if not bucket.reachable:
        return _failure(stage, ExitCode.UNAVAILABLE, stored.checkpoint)
    if found := stored.results.get(stage):
        return found
    if container.report_only:
        return _failure(stage, ExitCode.NO_RESULT, stored.checkpoint)
    total = stored.scenario.seconds[stage]
    first = stored.checkpoint if stage == "train" else 0
    for step in range(first, STEPS):
        await asyncio.sleep(total / STEPS * bucket.slowness)
        if not bucket.reachable:
            return _failure(stage, ExitCode.UNAVAILABLE, stored.checkpoint)
        if stage == "train":
            stored.checkpoint = max(stored.checkpoint, step + 1)
    planted = stored.scenario.planted.get(stage)
    if planted is not None:
        return _failure(stage, planted, stored.checkpoint)
    result = success(stage, container.uid)
    stored.completed[stage] = stored.completed.get(stage, 0) + 1
    stored.results[stage] = result
    return result


def success(stage: Stage, uid: str) -> StageResult:
    """Return the result of a stage that worked to its end."""
    run_id = hashlib.sha256(uid.encode()).hexdigest()
    name = _ARTIFACTS.get(stage)
    artifacts = []
    if name:
        kind: Any = "LoRAAdapter" if stage == "train" else "GGUF"
        artifacts = [Artifact(name=name, type=kind, path=name, size_bytes=1, sha256=run_id)]
    return StageResult(stage=stage, exit_code=0, run_id=run_id, artifacts=artifacts)


def _failure(stage: Stage, code: int, checkpoint: int) -> StageResult:
    return StageResult(
        stage=stage,
        exit_code=code,
        reason=exit_codes.reason(code),
        message=f"The fake trainer ended with exit code {code} in {stage}; this was planted.",
        checkpoint_step=checkpoint if stage == "train" and checkpoint else None,
    )


def _message(stage: Stage, code: int, checkpoint: int) -> str:
    return _failure(stage, code, checkpoint).termination_message().decode()


def _reported(stage: Stage, result: StageResult) -> tuple[int, str]:
    return result.exit_code, result.termination_message().decode()


def lacking(stored: Stored, artifacts: list[dict[str, Any]]) -> list[str]:
    """Return which artifacts of a job that succeeded its status does not name."""
    named = {a["name"] for a in artifacts}
    return [name for stage, name in _ARTIFACTS.items() if stage not in stored.results or name not in named]
