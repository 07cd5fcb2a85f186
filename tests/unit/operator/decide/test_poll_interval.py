"""How soon something that waits is looked at again."""

from datetime import timedelta

import pytest

from finetune_operator.decide.poll_interval import poll_interval_seconds


@pytest.mark.parametrize(("waited", "seconds"), [(0, 5), (4, 5), (12, 12), (30, 30), (3600, 30)])
def test_it_is_looked_at_after_as_long_again_within_bounds(waited: int, seconds: int) -> None:
    assert poll_interval_seconds(timedelta(seconds=waited)) == seconds


def test_a_minute_of_waiting_takes_few_looks() -> None:
    waited, looks = 0.0, 0
    while waited < 60:
        waited += poll_interval_seconds(timedelta(seconds=waited))
        looks += 1
    assert looks <= 5
