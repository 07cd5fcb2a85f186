from tests.faults.inject import INJECTORS
from tests.faults.scenario import scenario
from tests.faults.schedule import KINDS, schedule


def test_a_seed_gives_the_same_faults_in_the_same_order() -> None:
    assert schedule(7, 300, 4.0) == schedule(7, 300, 4.0)
    assert schedule(7, 300, 4.0) != schedule(8, 300, 4.0)


def test_a_short_schedule_is_the_beginning_of_a_long_one() -> None:
    assert schedule(7, 300, 4.0)[:20] == schedule(7, 20, 4.0)


def test_a_hundred_faults_are_of_every_kind() -> None:
    assert {fault.kind for fault in schedule(7, 100, 4.0)} == {kind.name for kind in KINDS}


def test_every_kind_can_be_injected() -> None:
    assert INJECTORS.keys() == {kind.name for kind in KINDS}


def test_a_seed_gives_the_same_jobs_good_and_bad() -> None:
    jobs = [scenario(7, number) for number in range(200)]
    assert jobs == [scenario(7, number) for number in range(200)]
    assert 0 < sum(job.fails_with is not None for job in jobs) < 100
