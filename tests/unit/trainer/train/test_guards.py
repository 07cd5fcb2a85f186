"""What the leader checks of the rows and of the library that trains: such a fault is the same in every attempt."""

from types import SimpleNamespace
from typing import Any

import pytest

from finetune_api import exit_codes
from finetune_trainer.errors import GuardError
from finetune_trainer.train import guards


def description(*, total_steps: int = 4, truncated: int = 0) -> Any:
    return SimpleNamespace(total_steps=total_steps, stop_token_ids=[2], dataset=SimpleNamespace(truncated=truncated))


def rows(*last_tokens: int) -> list[Any]:
    return [SimpleNamespace(ends_on=lambda stops, last=last: last in stops) for last in last_tokens]


def test_steps_and_rows_as_prepare_left_them_pass() -> None:
    guards.check_steps(4, description())
    guards.check_rows(rows(2, 2), description())
    guards.check_end(4, 4, ended_early=False)


def test_another_number_of_steps_than_prepares_is_permanent() -> None:
    with pytest.raises(GuardError, match=r"train would take 5 optimizer steps and prepare counted 4;") as caught:
        guards.check_steps(5, description())
    assert caught.value.exit_code in exit_codes.PERMANENT


def test_a_row_without_a_learned_end_is_permanent() -> None:
    wanted = r"2 of 3 rows do not end on a learned stop token, and prepare truncated only 1;"
    with pytest.raises(GuardError, match=wanted) as caught:
        guards.check_rows(rows(2, 7, 7), description(truncated=1))
    assert caught.value.exit_code in exit_codes.PERMANENT


def test_truncated_rows_need_no_end() -> None:
    guards.check_rows(rows(2, 7), description(truncated=1))


def test_training_that_ends_before_its_last_step_is_permanent() -> None:
    with pytest.raises(GuardError, match=r"training ended after step 3 of 4;") as caught:
        guards.check_end(3, 4, ended_early=False)
    assert caught.value.exit_code in exit_codes.PERMANENT


def test_early_stopping_may_end_before_the_last_step() -> None:
    guards.check_end(3, 4, ended_early=True)
