"""Processes that train together end together."""

import subprocess
import sys
from pathlib import Path

import pytest

from finetune_trainer.train import process_group


def started(*codes: str) -> list[subprocess.Popen[bytes]]:
    return [subprocess.Popen([sys.executable, "-c", code]) for code in codes]


WAIT = "import time; time.sleep(600)"
# Waited for in vain only by a test that fails.
PATIENCE_SECONDS = 60.0


def after(file: Path, then: str) -> str:
    """Return code that continues once there is a file."""
    return f"import time, pathlib\nwhile not pathlib.Path({str(file)!r}).exists(): time.sleep(0.02)\n{then}"


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_when_one_fails_the_others_are_ended(monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    monkeypatch.setattr(process_group, "_OTHERS_SECONDS", 0.2)
    processes = started(*("raise SystemExit(3)" if rank == failing else WAIT for rank in range(3)))
    assert process_group.wait(processes, lambda rank: rank == failing) == [failing]
    assert [process.returncode for process in processes] == [3 if rank == failing else -9 for rank in range(3)]


def test_the_others_may_say_first_how_they_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "_OTHERS_SECONDS", PATIENCE_SECONDS)
    noticed, said = tmp_path / "noticed", tmp_path / "said"

    def failed(rank: int) -> bool:
        noticed.touch()
        return rank == 0

    slow = after(noticed, f"pathlib.Path({str(said)!r}).touch()")
    assert process_group.wait(started("raise SystemExit(3)", slow), failed) == [0, 1]
    assert said.exists()


def test_when_the_leader_is_through_the_others_are_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "_END_SECONDS", 0.2)
    processes = started("pass", WAIT)
    assert process_group.wait(processes, lambda rank: False) == [0]
    assert [process.returncode for process in processes] == [0, -9]


def test_others_that_are_through_leave_the_leader_all_the_time_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_group, "_OTHERS_SECONDS", 0.1)
    monkeypatch.setattr(process_group, "_END_SECONDS", 0.1)
    through = tmp_path / "through"

    def failed(rank: int) -> bool:
        through.touch()
        return False

    # Three times as long as it would have if there were a limit.
    assert process_group.wait(started(after(through, "time.sleep(0.3)"), "pass"), failed) == [1, 0]
