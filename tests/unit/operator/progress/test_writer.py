import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.progress import Progress
from finetune_api.status import FineTuneJobStatus
from finetune_operator.cluster.client import FINETUNE_JOBS
from finetune_operator.cluster.errors import Conflict
from finetune_operator.progress.store import ProgressStore
from finetune_operator.progress.writer import FIELD_MANAGER, ProgressWriter, settle
from tests.unit.operator.fakes import Clock, FakeKube, running_train

KEY = ("team", "coach")


class World:
    def __init__(self) -> None:
        self.kube = FakeKube()
        running_train(self.kube)
        self.clock = Clock()
        self.store = ProgressStore()
        self.writer = ProgressWriter(self.kube, self.store, self.clock)

    def push(self, step: int) -> None:
        report = Progress(stage="train", attempt=1, activity="Training", step=step, total_steps=60)
        self.store.take(KEY, "uid-of-coach", report, self.clock())

    @property
    def job(self) -> dict[str, object]:
        job: dict[str, object] = self.kube.objects[FINETUNE_JOBS.plural, *KEY]
        return job

    @property
    def writes(self) -> int:
        return self.kube.calls.count(("apply_status", "finetunejobs", FIELD_MANAGER))


@pytest.fixture
def world() -> World:
    return World()


async def test_the_latest_report_is_written(world: World) -> None:
    world.push(3)
    world.push(4)
    await world.writer(KEY)
    assert world.job["status"]["progress"]["steps"] == "4/60"  # type: ignore[index]


async def test_a_written_report_is_not_written_again(world: World) -> None:
    world.push(3)
    await world.writer(KEY)
    await world.writer(KEY)
    assert world.writes == 1


async def test_newer_news_of_another_replica_stays(world: World) -> None:
    world.job["status"] = {"progress": {"stage": "train", "attempt": 2, "activity": "Loading"}}
    world.push(30)
    await world.writer(KEY)
    assert world.writes == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["push", "write"]), st.integers(0, 1), st.integers(0, 8)), max_size=40))
async def test_the_status_never_goes_back_whichever_replica_gets_a_report_and_however_late_it_writes_it(
    story: list[tuple[str, int, int]],
) -> None:
    kube, clock = FakeKube(), Clock()
    running_train(kube)
    stores = ProgressStore(), ProgressStore()
    seen = []
    for action, replica, sequence in story:
        if action == "push":
            # Every other report has no step, as those about something else than steps.
            step = sequence if sequence % 2 else None
            report = Progress(stage="train", attempt=1, activity="Training", sequence=sequence, step=step)
            stores[replica].take(KEY, "uid-of-coach", report, clock())
        else:
            await ProgressWriter(kube, stores[replica], clock)(KEY)
            progress = kube.objects[FINETUNE_JOBS.plural, *KEY].get("status", {}).get("progress")
            seen += [progress["sequence"]] if progress else []
    assert seen == sorted(seen)


async def test_a_stored_report_that_is_not_understood_is_replaced(world: World) -> None:
    world.job["status"] = {"progress": {"stage": "train", "attempt": 2, "activity": "Dreaming"}}
    world.push(30)
    await world.writer(KEY)
    assert world.writes == 1


async def test_a_finished_job_is_left_alone(world: World) -> None:
    world.job["status"] = {"conditions": [{"type": "Finished", "status": "True"}]}
    world.push(60)
    await world.writer(KEY)
    assert world.writes == 0


async def test_a_new_job_of_the_same_name_gets_nothing_of_the_old_one(world: World) -> None:
    world.push(3)
    world.job["metadata"]["uid"] = "recreated"  # type: ignore[index]
    await world.writer(KEY)
    assert (world.writes, dict(world.store.entries)) == (0, {})


async def test_a_job_that_is_gone_is_forgotten(world: World) -> None:
    world.push(3)
    del world.kube.objects[FINETUNE_JOBS.plural, *KEY]
    await world.writer(KEY)
    assert dict(world.store.entries) == {}


async def test_what_came_during_a_write_is_asked_for_again(world: World) -> None:
    world.push(3)
    apply_status = world.kube.apply_status

    async def slowly(*arguments: object, **named: object) -> object:
        world.push(4)
        return await apply_status(*arguments, **named)  # type: ignore[arg-type]

    world.kube.apply_status = slowly  # type: ignore[method-assign,assignment]
    assert await world.writer(KEY) == 5.0


async def test_a_conflict_keeps_the_report_for_the_next_try(world: World) -> None:
    world.push(3)
    world.kube.refuse["apply_status", "finetunejobs"] = Conflict(409, "Conflict", "changed")
    with pytest.raises(Conflict):
        await world.writer(KEY)
    world.kube.refuse.clear()
    await world.writer(KEY)
    assert world.job["status"]["progress"]["step"] == 3  # type: ignore[index]


async def test_a_report_that_is_no_longer_true_is_taken_back_once(world: World) -> None:
    world.push(60)
    await world.writer(KEY)
    for _ in range(2):
        await settle(world.kube, world.job, FineTuneJobStatus())
    assert world.writes == 2
    assert "activity" not in world.job["status"]["progress"]  # type: ignore[index]
    assert world.job["status"]["progress"]["steps"] == "60/60"  # type: ignore[index]


async def test_a_job_without_reports_has_nothing_to_take_back(world: World) -> None:
    await settle(world.kube, world.job, FineTuneJobStatus())
    assert world.writes == 0


async def test_older_news_is_known_after_the_activity_was_taken_back(world: World) -> None:
    world.job["status"] = {"progress": {"stage": "train", "attempt": 1, "step": 60}}
    world.push(30)
    await world.writer(KEY)
    assert world.writes == 0
