"""Processes that train together end together."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune_trainer.train import process_group


def started(*codes: str) -> list[subprocess.Popen[bytes]]:
    return [subprocess.Popen([sys.executable, "-c", code]) for code in codes]


WAIT = "import time; time.sleep(60)"


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_when_one_fails_the_others_are_ended(monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    monkeypatch.setattr(process_group, "_OTHERS_SECONDS", 0.2)
    processes = started(*("raise SystemExit(3)" if rank == failing else WAIT for rank in range(3)))
    assert process_group.wait(processes, lambda rank: rank == failing) == [failing]
    assert [process.returncode for process in processes] == [3 if rank == failing else -9 for rank in range(3)]


def test_the_others_may_say_first_how_they_ended(tmp_path: Path) -> None:
    said = tmp_path / "said"
    slow = f"import time, pathlib; time.sleep(0.5); pathlib.Path({str(said)!r}).touch()"
    assert process_group.wait(started("raise SystemExit(3)", slow), lambda rank: rank == 0) == [0, 1]
    assert said.exists()


def test_when_the_leader_is_through_the_others_are_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "_END_SECONDS", 0.2)
    processes = started("pass", WAIT)
    assert process_group.wait(processes, lambda rank: False) == [0]
    assert [process.returncode for process in processes] == [0, -9]


def test_others_that_are_through_leave_the_leader_all_the_time_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "_OTHERS_SECONDS", 0.1)
    monkeypatch.setattr(process_group, "_END_SECONDS", 0.1)
    began = time.monotonic()
    assert process_group.wait(started("import time; time.sleep(1)", "pass"), lambda rank: False) == [1, 0]
    assert time.monotonic() - began >= 1
