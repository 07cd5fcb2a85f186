import asyncio
import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.cluster.errors import LeadershipLost, Unreachable
from finetune_operator.control.workqueue import MAXIMUM_BACKOFF_SECONDS, Schedule, WorkQueue, backoff_seconds


def test_a_key_added_twice_is_taken_once() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.add("a", 1.0)
    schedule.add("a", 1.0)
    assert [schedule.take(1.0), schedule.take(1.0)] == ["a", None]


@pytest.mark.parametrize("times", [(5.0, 2.0), (2.0, 5.0)])
def test_the_earliest_of_several_times_counts(times: tuple[float, float]) -> None:
    schedule: Schedule[str] = Schedule()
    for at in times:
        schedule.add("a", at)
    assert schedule.next_due() == 2.0


def test_a_key_is_not_taken_before_it_is_due() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.add("a", 2.0)
    assert schedule.take(1.9) is None


def test_a_key_in_work_is_not_taken_again_until_it_is_finished() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.add("a", 0.0)
    schedule.take(0.0)
    schedule.add("a", 0.0)
    assert schedule.take(9.0) is None
    schedule.finish("a", 9.0, failed=False)
    assert schedule.take(9.0) == "a"


def test_failures_in_a_row_wait_longer_each_time() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.add("a", 0.0)
    waits = []
    for _ in range(3):
        now = schedule.next_due() or 0.0
        schedule.take(now)
        schedule.finish("a", now, failed=True)
        waits.append((schedule.next_due() or 0.0) - now)
    assert waits == [0.5, 1.0, 2.0]


def test_a_success_ends_the_row_of_failures() -> None:
    schedule: Schedule[str] = Schedule()
    for failed in (True, True, False, True):
        schedule.add("a", 0.0)
        schedule.take(100.0)
        schedule.finish("a", 100.0, failed=failed)
    assert schedule.next_due() == 100.5


def test_backoff_is_bounded() -> None:
    assert backoff_seconds(10_000) == MAXIMUM_BACKOFF_SECONDS


def test_requeue_after_counts_from_the_end_of_the_work() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.add("a", 0.0)
    schedule.take(0.0)
    schedule.finish("a", 7.0, failed=False, requeue_after=5.0)
    assert schedule.next_due() == 12.0


def test_news_during_the_work_beats_a_later_requeue() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.add("a", 0.0)
    schedule.take(0.0)
    schedule.add("a", 1.0)
    schedule.finish("a", 2.0, failed=False, requeue_after=60.0)
    assert schedule.take(2.0) == "a"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=40))
def test_keys_come_in_the_order_in_which_they_are_due(added: list[tuple[str, int]]) -> None:
    schedule: Schedule[str] = Schedule()
    earliest: dict[str, int] = {}
    for key, at in added:
        schedule.add(key, float(at))
        earliest[key] = min(at, earliest.get(key, at))
    taken = [found for _ in added if (found := schedule.take(9.0)) is not None]
    assert sorted(taken) == sorted(earliest)
    assert [earliest[key] for key in taken] == sorted(earliest.values())


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from("abcd"), st.integers(0, 3)),
            st.tuples(st.just("take"), st.just(""), st.integers(0, 3)),
            st.tuples(st.sampled_from(["ok", "fail", "again"]), st.sampled_from("abcd"), st.integers(0, 3)),
        ),
        max_size=60,
    )
)
def test_no_key_is_lost_or_worked_on_twice_at_a_time(steps: list[tuple[str, str, int]]) -> None:
    schedule: Schedule[str] = Schedule()
    now, active, owed = 0.0, set[str](), set[str]()
    for step, key, seconds in steps:
        now += seconds
        if step == "add":
            schedule.add(key, now)
            owed.add(key)
        elif step == "take":
            taken = schedule.take(now)
            assert taken not in active
            if taken is not None:
                active.add(taken)
                owed.discard(taken)
        elif key in active:
            active.remove(key)
            schedule.finish(key, now, failed=step == "fail", requeue_after=1.0 if step == "again" else None)
            if step != "ok":
                owed.add(key)
    for key in active:
        schedule.finish(key, now, failed=False)
    rest = set()
    while (due := schedule.next_due()) is not None:
        taken = schedule.take(due)
        assert taken is not None
        rest.add(taken)
        schedule.finish(taken, due, failed=False)
    assert rest == owed


class _Handler:
    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.most = 0
        self.done: list[str] = []

    async def __call__(self, key: str) -> float | None:
        self.now[key] = self.now.get(key, 0) + 1
        assert self.now[key] == 1, "two workers on one key"
        self.most = max(self.most, sum(self.now.values()))
        await asyncio.sleep(0.01)
        self.now[key] -= 1
        self.done.append(key)
        return None


async def _run_for(queue: WorkQueue[str], done: Sequence[str], calls: int) -> None:
    """Run until so many handler calls are done, and a moment longer."""
    running = asyncio.create_task(queue.run())
    async with asyncio.timeout(60):
        while len(done) < calls:  # noqa: ASYNC110 - the handler that is tested knows of no event
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_one_key_is_worked_on_by_one_worker_at_a_time() -> None:
    handler = _Handler()
    queue: WorkQueue[str] = WorkQueue(handler, workers=4)
    queue.add("a")
    asyncio.get_running_loop().call_later(0.005, queue.add, "a")
    await _run_for(queue, handler.done, 2)
    assert handler.done == ["a", "a"]


async def test_different_keys_are_worked_on_together_up_to_the_number_of_workers() -> None:
    handler = _Handler()
    queue: WorkQueue[str] = WorkQueue(handler, workers=2)
    for key in "abcd":
        queue.add(key)
    await _run_for(queue, handler.done, 4)
    assert (handler.most, sorted(handler.done)) == (2, ["a", "b", "c", "d"])


@pytest.mark.parametrize("error", [Unreachable("down"), ZeroDivisionError()])
async def test_an_exception_is_tried_again_and_stops_nobody_else(error: Exception) -> None:
    done: list[str] = []

    async def handler(key: str) -> float | None:
        done.append(key)
        if key == "bad" and done.count("bad") == 1:
            raise error
        return None

    queue: WorkQueue[str] = WorkQueue(handler, workers=1)
    queue.add("bad")
    queue.add("good")
    await _run_for(queue, done, 3)
    assert done == ["bad", "good", "bad"]


async def test_the_handler_is_called_again_when_it_asks_for_that() -> None:
    done: list[str] = []

    async def handler(key: str) -> float | None:
        done.append(key)
        return 0.01 if len(done) < 3 else None

    queue: WorkQueue[str] = WorkQueue(handler, workers=1)
    queue.add("a")
    await _run_for(queue, done, 3)
    assert len(done) == 3


async def test_a_stuck_handler_call_is_seen() -> None:
    now, called = [0.0], asyncio.Event()

    async def handler(key: str) -> float | None:
        called.set()
        await asyncio.Event().wait()
        return None

    queue: WorkQueue[str] = WorkQueue(handler, workers=1, clock=lambda: now[0])
    queue.add("a")
    task = asyncio.create_task(queue.run())
    await called.wait()
    now[0] = 400.0
    assert queue.longest_active_seconds() == 400.0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_lost_lead_ends_the_queue() -> None:
    async def handler(key: str) -> None:
        raise LeadershipLost

    queue: WorkQueue[str] = WorkQueue(handler, workers=1)
    queue.add("a")
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(queue.run(), 60)
    assert caught.group_contains(LeadershipLost)
