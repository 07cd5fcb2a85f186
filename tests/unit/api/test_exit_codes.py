import pytest

from finetune_api import exit_codes
from finetune_api.exit_codes import ExitCode

CODES = {
    "OK": 0,
    "SETTINGS": 64,
    "DATASET": 65,
    "MODEL": 66,
    "UNAVAILABLE": 69,
    "SOFTWARE": 70,
    "NO_RESULT": 72,
    "PREEMPTED": 75,
    "ACCESS_DENIED": 77,
    "OUT_OF_GPU_MEMORY": 79,
    "GPU_UNUSABLE": 80,
    "HUNG": 81,
    "DIVERGED": 82,
}


def test_the_numbers_never_change() -> None:
    assert {code.name: code.value for code in ExitCode} == CODES


def test_every_failure_has_a_reason_of_its_own() -> None:
    reasons = [exit_codes.reason(code) for code in ExitCode if code is not ExitCode.OK]
    assert len(set(reasons)) == len(CODES) - 1
    assert "Crashed" not in reasons


@pytest.mark.parametrize("code", [1, 2, 127, 137, 139, 255])
def test_a_code_that_is_none_of_ours_is_a_crash(code: int) -> None:
    assert exit_codes.reason(code) == "Crashed"


def test_what_is_permanent_is_never_tried_for_free() -> None:
    assert not exit_codes.PERMANENT & exit_codes.UNCOUNTED_WITH_PROGRESS


def test_a_fault_of_the_trainer_itself_is_not_tried_again() -> None:
    assert ExitCode.SOFTWARE in exit_codes.PERMANENT
    assert exit_codes.reason(ExitCode.SOFTWARE) == "InternalError"


def test_a_bad_gpu_is_worth_another_node() -> None:
    assert ExitCode.GPU_UNUSABLE not in exit_codes.PERMANENT
