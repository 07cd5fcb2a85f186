"""Rows of commands side by side."""

import time
from pathlib import Path

import pytest

from local_platform import commands
from local_platform.commands import PlatformError, Step, side_by_side


def shell(title: str, script: str, seconds: float = 1.0) -> Step:
    return Step(title, seconds, ("sh", "-c", script))


def runs(pid: str) -> bool:
    """Whether the process is there; one that has ended may wait for a parent that never asks."""
    try:
        stat = Path("/proc", pid, "stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_the_steps_of_a_row_run_one_after_another(tmp_path: Path) -> None:
    lines: list[str] = []
    side_by_side(lines.append, [[shell("a", f"echo a >>{tmp_path}/log"), shell("b", f"echo b >>{tmp_path}/log")]], 0)
    assert (tmp_path / "log").read_text().split() == ["a", "b"]
    assert [line.split()[0] for line in lines] == ["a", "b"]


def test_rows_run_at_the_same_time(tmp_path: Path) -> None:
    # Each waits for the other.
    first = shell("first", f"echo >{tmp_path}/first; until [ -e {tmp_path}/second ]; do sleep 0.1; done")
    second = shell("second", f"echo >{tmp_path}/second; until [ -e {tmp_path}/first ]; do sleep 0.1; done")
    side_by_side(lambda _: None, [[first], [second]], 0)


def test_a_failure_says_what_the_command_printed_and_stops_the_other_rows(tmp_path: Path) -> None:
    # What it starts is stopped too.
    child = tmp_path / "child"
    endless = shell("endless", f"sleep 3600 & echo $! >{child}.new; mv {child}.new {child}; wait")
    failing = shell("failing", f"until [ -e {child} ]; do sleep 0.1; done; echo the disk is full; exit 3")
    with pytest.raises(PlatformError, match=r"ended with 3:\nthe disk is full"):
        side_by_side(lambda _: None, [[endless], [failing]], 0)
    deadline = time.monotonic() + 60
    while runs(child.read_text().strip()):
        assert time.monotonic() < deadline, "what a stopped step had started still runs"
        time.sleep(0.1)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(commands.time, "monotonic", lambda: self.now)


def test_the_time_left_is_that_of_the_longest_row_and_of_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    long, short = shell("long", "", seconds=600), shell("short", "", seconds=100)
    long.started = short.started = clock.now
    clock.now += 60
    assert commands._left([[long], [short]], 30) == 540 + 30


def test_the_time_left_grows_on_a_machine_that_took_twice_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    done, next_one = shell("done", "", seconds=100), shell("next", "", seconds=50)
    done.started, done.took, next_one.started = clock.now - 200, 200.0, clock.now
    assert commands._left([[done, next_one]], 10) == 100 + 20


def test_what_was_there_already_says_nothing_about_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    there, next_one = shell("there", "", seconds=660), shell("next", "", seconds=50)
    there.started, there.took = clock.now, 0.1
    assert commands._left([[there, next_one]], 0) == 50
