"""What kubectl, Argo CD and Flux read."""

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from finetune_api.status import Condition
from finetune_operator.decide.conditions import State, build
from finetune_operator.decide.evaluation_gate import Evaluated

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORSE = Evaluated(False, "Worse", "It is worse.")
BETTER = Evaluated(True, "Better", "It is better.")


def conditions(
    state: State,
    previous: list[Condition] | None = None,
    *,
    accepted: bool = True,
    evaluated: Evaluated | None = None,
    after: int = 0,
) -> dict[str, Condition]:
    now = NOW + timedelta(seconds=after)
    built = build(
        previous or [], state, "Why", "A sentence.", accepted=accepted, evaluated=evaluated, now=now, generation=4
    )
    return {c.type: c for c in built}


def kstatus(found: dict[str, Condition]) -> str:
    """As cli-utils' generic rules compute it from conditions."""
    for kind, verdict in (("Reconciling", "InProgress"), ("Stalled", "Failed")):
        if kind in found and found[kind].status == "True":
            return verdict
    return "Current" if found["Ready"].status == "True" else "InProgress"


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        ("unfinished", "InProgress"),
        ("suspended", "InProgress"),
        ("blocked", "Failed"),
        ("succeeded", "Current"),
        ("failed", "Failed"),
    ],
)
def test_kstatus_agrees(state: State, verdict: str) -> None:
    assert kstatus(conditions(state)) == verdict


@pytest.mark.parametrize("state", get_args(State))
@pytest.mark.parametrize("evaluated", [WORSE, BETTER], ids=["worse", "better"])
def test_what_the_result_is_worth_changes_no_other_condition(state: State, evaluated: Evaluated) -> None:
    found = conditions(state, evaluated=evaluated)
    assert kstatus(found) == kstatus(conditions(state))
    assert {k: v for k, v in found.items() if k != "Evaluated"} == conditions(state)


@pytest.mark.parametrize(("evaluated", "status"), [(WORSE, "False"), (BETTER, "True")], ids=["worse", "better"])
def test_a_verdict_is_a_condition(evaluated: Evaluated, status: str) -> None:
    found = conditions("succeeded", evaluated=evaluated)["Evaluated"]
    assert (found.status, found.reason, found.message) == (status, evaluated.reason, evaluated.message)


def test_there_is_no_verdict_before_there_is_one() -> None:
    assert "Evaluated" not in conditions("unfinished")


@pytest.mark.parametrize("state", get_args(State))
def test_reconciling_and_stalled_are_absent_unless_true(state: State) -> None:
    found = conditions(state)
    assert {found[k].status for k in ("Reconciling", "Stalled") if k in found} <= {"True"}


@pytest.mark.parametrize(
    ("state", "finished"),
    [
        ("unfinished", "False"),
        ("suspended", "False"),
        ("blocked", "False"),
        ("succeeded", "True"),
        ("failed", "True"),
    ],
)
def test_finished_is_true_for_both_outcomes(state: State, finished: str) -> None:
    assert conditions(state)["Finished"].status == finished


@pytest.mark.parametrize("state", get_args(State))
def test_only_a_suspended_job_is_suspended(state: State) -> None:
    assert conditions(state)["Suspended"].status == ("True" if state == "suspended" else "False")


def test_a_transition_is_a_change_of_status() -> None:
    before = list(conditions("unfinished").values())
    found = conditions("failed", before, after=60)
    assert found["Ready"].last_transition_time == "2026-01-01T00:00:00Z"
    assert found["Finished"].last_transition_time == "2026-01-01T00:01:00Z"


def test_a_job_that_is_not_accepted_says_why() -> None:
    accepted = conditions("failed", accepted=False)["Accepted"]
    assert (accepted.status, accepted.reason, accepted.message) == ("False", "Why", "A sentence.")


def test_every_condition_tells_which_spec_it_is_about() -> None:
    assert {c.observed_generation for c in conditions("succeeded").values()} == {4}
