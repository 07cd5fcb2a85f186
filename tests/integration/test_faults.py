"""The short form of `make faults`: a few faults of most kinds, at once, and nothing is lost, doubled or wrong."""

import asyncio
from pathlib import Path

from local_platform.operator_process import Installed
from tests.faults.run import Options, run
from tests.faults.schedule import schedule

# Among its first faults: operator, API server and etcd are killed, answers lost, a node lost, a job suspended and one
# recreated.
SEED = 10648


def test_nothing_is_lost_doubled_or_wrong(installed: Installed, tmp_path: Path) -> None:
    faults = schedule(SEED, 15, pause=1.5, longest=4.0)
    kinds = {fault.kind for fault in faults}
    assert {"operator-kill", "apiserver-kill", "answers-lost", "node-lost", "recreated", "suspended"} <= kinds
    # What does not settle must be reported before the test reaches its time limit.
    verdict = asyncio.run(run(installed, tmp_path, Options(SEED, faults, live=8, settle=200.0), print))
    assert verdict.good, verdict
