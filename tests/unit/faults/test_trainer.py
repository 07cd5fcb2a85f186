"""What the fake trainer keeps must be true, as everything is judged by it."""

import asyncio

from tests.faults.scenario import Scenario
from tests.faults.trainer import STEPS, Bucket, Container, play

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
