"""All pods of a round hear the same and come to the same conclusion: which pod decides, and how it ended."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.result import StageResult
from finetune_trainer.gpu.memory_fallback import Shortage
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.train.messages import Outcome
from finetune_trainer.train.pods.root_cause import RoundState, find_root_cause
from tests.unit.api.strategies import unhurried

SHORT = Outcome(shortage=Shortage("GPU", 1000, 1200), memory_settings=MemorySettings(8, "None"), weights=Path("/model"))
FOLLOWED = RoundState(outcome=Outcome())


def ended(code: int, failed: int | None = 1) -> RoundState:
    failed = None if code == 0 else failed
    return RoundState(failed=failed, outcome=Outcome(result=StageResult(stage="train", exit_code=code)))


@pytest.mark.parametrize(
    ("states", "decides"),
    [
        ([ended(0), FOLLOWED], 0),
        # Its result is complete.
        ([ended(0), None], 0),
        ([ended(0), ended(137)], 0),
        ([ended(1), RoundState(failed=2, outcome=SHORT)], 1),
        ([RoundState(failed=2, outcome=SHORT), ended(1)], 0),
        ([ended(137), RoundState(failed=2, outcome=SHORT)], 1),
        # What the others say for want of a pod is not the cause.
        ([ended(1, 1), ended(80, 2)], 1),
        ([ended(134, 1), ended(66, 2)], 1),
        # A guard of one pod is the cause, whatever breaks in the others.
        ([ended(134, 1), ended(70, 2)], 1),
        ([ended(134, 1), None], 1),
        ([ended(1, 1), ended(137, 2)], 1),
        ([None, ended(1)], 0),
        ([ended(69), None], 0),
        # The leader has its result from a stop that all agreed to.
        ([ended(75), FOLLOWED], 0),
        ([ended(75, 2), ended(75, 1)], 0),
        ([ended(1, 1), ended(75, 2)], 1),
        # Of equals, the pod that failed first.
        ([ended(134, 2), ended(137, 1)], 1),
        ([ended(1, 2), ended(1, 1), ended(1, 3)], 1),
        ([ended(1, 1), ended(1, 2)], 0),
        ([ended(1, 2), ended(137, 1).model_copy(update={"killed": True})], 0),
        # One that does not end its processes in time is not the cause.
        ([ended(1, 1), RoundState()], 0),
        ([RoundState(failed=1), ended(1, 2)], 1),
    ],
)
def test_the_pod_at_fault_decides(states: list[RoundState | None], decides: int) -> None:
    word = states[decides]
    assert find_root_cause(states) == (decides, word.outcome if word else None)


def any_word() -> st.SearchStrategy[RoundState | None]:
    codes = st.builds(ended, st.sampled_from([1, 64, 69, 75, 80, 81, 134, 137, 139]), st.integers(1, 16))
    return st.one_of(
        st.none(), st.just(RoundState()), st.just(FOLLOWED), codes, st.just(RoundState(failed=1, outcome=SHORT))
    )


@unhurried
@given(st.lists(any_word(), min_size=2, max_size=16))
def test_memory_that_ran_out_in_any_pod_is_another_round(states: list[RoundState | None]) -> None:
    short = any(one is not None and one.outcome is not None and one.outcome.shortage for one in states)
    _, outcome = find_root_cause(states)
    assert (outcome is not None and outcome.shortage is not None) == short


@unhurried
@given(st.lists(any_word(), min_size=1, max_size=15))
def test_without_the_leaders_success_there_is_none(others: list[RoundState | None]) -> None:
    _, outcome = find_root_cause([None, *others])
    assert outcome is None or outcome.shortage is not None or outcome.result is not None
    assert outcome is None or outcome.result is None or outcome.result.exit_code != 0
