"""The replicas of a fault run: each is one process at a time."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from tests.faults import operators
from tests.faults.operators import Operators, Replica


class Process:
    """Stands for the process of a replica, which ends by itself at once when it is started first."""

    def __init__(self) -> None:
        self.status: int | None = 1
        self.launches = 0

    def ended(self) -> int | None:
        return self.status

    def launch(self) -> None:
        self.status = None
        self.launches += 1

    def kill(self) -> None:
        self.status = None


def supervised(process: Any) -> tuple[Operators, Replica]:
    nothing: Any = None
    found = Operators(nothing, nothing, Path(), random.Random(1), "module")
    found.replicas.append(Replica("operator-0", process, nothing))
    return found, found.replicas[0]


async def _supervise(found: Operators, monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    monkeypatch.setattr(operators, "_RESTART_SECONDS", 0.05)
    supervisor = asyncio.create_task(found.supervise())
    await asyncio.sleep(0)
    await fault
    await asyncio.sleep(0.3)
    supervisor.cancel()


async def test_a_replica_that_ended_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process()
    found, _ = supervised(process)
    await _supervise(found, monkeypatch, asyncio.sleep(0))
    assert (process.launches, found.endings) == (1, [1])


@pytest.mark.parametrize("seconds", [0.0, 0.2], ids=["a short fault", "one that lasts"])
async def test_a_fault_that_starts_a_replica_again_is_not_doubled(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    process = Process()
    found, replica = supervised(process)
    await _supervise(found, monkeypatch, found.kill(replica, seconds))
    assert process.launches == 1
