"""What the fake trainer keeps must be true, as everything is judged by it."""

import asyncio

import pytest

from tests.faults import trainer
from tests.faults.scenario import Scenario
from tests.faults.trainer import STEPS, Bucket, Container, Team, play


@pytest.fixture(autouse=True)
def _others_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "_AFTER_SECONDS", 0.01)


QUICK = Scenario({"prepare": 0.0, "train": 0.0, "export": 0.0})
SLOW = Scenario({"prepare": 9e9, "train": 9e9, "export": 9e9})


async def _bucket(scenario: Scenario) -> Bucket:
    bucket = Bucket()
    await bucket.add("u", scenario)
    return bucket


async def test_a_second_attempt_finds_the_result_and_does_not_train_again() -> None:
    bucket = await _bucket(QUICK)
    first = await play(Container("u", "train", report_only=False), bucket)
    assert await play(Container("u", "train", report_only=False), bucket) == first
    assert first[0] == 0
    assert bucket.by_uid["u"].completed == {"train": 1}


async def test_two_at_the_same_time_both_train() -> None:
    bucket = await _bucket(QUICK)
    await asyncio.gather(*(play(Container("u", "train", report_only=False), bucket) for _ in range(2)))
    assert bucket.by_uid["u"].completed == {"train": 2}


async def test_sigterm_ends_it_with_the_checkpoint_saved() -> None:
    bucket = await _bucket(SLOW)
    bucket.by_uid["u"].checkpoint = 3
    container = Container("u", "train", report_only=False)
    container.stopping.set()
    code, message = await play(container, bucket)
    assert code == 75
    assert '"checkpointStep":3' in message
    assert bucket.by_uid["u"].completed == {}


async def test_a_crash_leaves_no_message() -> None:
    bucket = await _bucket(SLOW)
    container = Container("u", "train", report_only=False)
    container.crash.set_result(137)
    assert await play(container, bucket) == (137, "")


async def test_without_the_bucket_it_ends_with_69() -> None:
    bucket = await _bucket(QUICK)
    bucket.reachable = False
    assert (await play(Container("u", "prepare", report_only=False), bucket))[0] == 69


async def test_a_report_does_no_work() -> None:
    bucket = await _bucket(QUICK)
    assert (await play(Container("u", "train", report_only=True), bucket))[0] != 0
    assert bucket.by_uid["u"].completed == {}


async def test_it_resumes_where_the_checkpoint_is() -> None:
    bucket = await _bucket(QUICK)
    bucket.by_uid["u"].checkpoint = STEPS
    assert (await play(Container("u", "train", report_only=False), bucket))[0] == 0


def _pair() -> tuple[Container, Container]:
    team = Team(2)
    first, second = (Container("u", "train", report_only=False, index=index, team=team) for index in (0, 1))
    return first, second


async def test_several_train_once_and_all_succeed() -> None:
    bucket = await _bucket(QUICK)
    ends = await asyncio.gather(*(play(container, bucket) for container in _pair()))
    assert [code for code, _ in ends] == [0, 0]
    assert bucket.by_uid["u"].completed == {"train": 1}


async def test_one_of_several_does_not_begin_alone() -> None:
    bucket = await _bucket(QUICK)
    alone = asyncio.ensure_future(play(_pair()[0], bucket))
    await asyncio.wait({alone}, timeout=0.05)
    assert not alone.done()
    alone.cancel()


async def test_the_others_end_after_the_one_that_crashes() -> None:
    bucket = await _bucket(SLOW)
    first, second = _pair()
    playing = [asyncio.ensure_future(play(container, bucket)) for container in (first, second)]
    second.crash.set_result(137)
    done, _ = await asyncio.wait(playing, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result()[0] for task in done] == [137]
    assert (await playing[0])[0] == 75


async def test_the_others_end_after_the_one_that_is_killed() -> None:
    bucket = await _bucket(SLOW)
    playing = [asyncio.ensure_future(play(container, bucket)) for container in _pair()]
    await asyncio.sleep(0)
    playing[0].cancel()
    assert (await playing[1])[0] == 75
