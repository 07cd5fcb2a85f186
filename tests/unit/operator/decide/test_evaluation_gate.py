"""What a verdict means for the job."""

import pytest

from finetune_api.spec import Gate
from finetune_api.status import EvaluationStatus, Verdict
from finetune_operator.decide.evaluation_gate import evaluated, missed

ASKED = Gate(on_miss="Fail")


def measured(verdict: Verdict | None, tuned: str = "2.29") -> EvaluationStatus:
    return EvaluationStatus(holdout_loss_base="2.31", holdout_loss_tuned=tuned, standard_error="0.04", verdict=verdict)


@pytest.mark.parametrize("evaluation", [None, EvaluationStatus(), EvaluationStatus(holdout_loss_base="2.31")])
def test_there_is_no_condition_without_a_verdict(evaluation: EvaluationStatus | None) -> None:
    assert evaluated(evaluation) is None


@pytest.mark.parametrize(
    ("verdict", "tuned", "better", "message"),
    [
        (
            *("Better", "1.07", True),
            "The loss on the hold-out rows went from 2.31 to 1.07 (standard error of the difference 0.04), "
            "more than chance explains.",
        ),
        (
            *("Worse", "2.87", False),
            "The loss on the hold-out rows went from 2.31 to 2.87 (standard error of the difference 0.04), "
            "more than chance explains.",
        ),
        (
            *("NotEnoughEvidence", "2.29", False),
            "The loss on the hold-out rows went from 2.31 to 2.29 (standard error of the difference 0.04), "
            "which may be chance.",
        ),
    ],
)
def test_the_condition_tells_the_verdict_with_its_figures(
    verdict: Verdict, tuned: str, better: bool, message: str
) -> None:
    found = evaluated(measured(verdict, tuned))
    assert found is not None
    assert (found.better, found.reason, found.message) == (better, verdict, message)


def test_a_verdict_without_figures_is_reported_all_the_same() -> None:
    found = evaluated(EvaluationStatus(verdict="Worse"))
    assert found is not None
    assert found.message == "The verdict on the hold-out rows is Worse."


def test_without_a_gate_every_result_counts() -> None:
    assert missed(None, measured("Worse")) is None


def test_only_a_better_result_passes() -> None:
    assert missed(ASKED, measured("Better")) is None


@pytest.mark.parametrize(
    ("evaluation", "advice"),
    [
        (measured("Worse"), "Lower training.learningRate"),
        (measured("NotEnoughEvidence"), "Add examples"),
        (measured(None), "the hold-out rows gave no verdict"),
        (None, "the hold-out rows gave no verdict"),
    ],
)
def test_any_other_result_misses_with_what_to_change(evaluation: EvaluationStatus | None, advice: str) -> None:
    found = missed(ASKED, evaluation)
    assert found is not None
    assert (found.stage, found.reason, found.exit_code) == ("train", "GateMissed", None)
    assert advice in found.message


def test_a_missed_gate_is_reported_with_its_figures() -> None:
    found = missed(ASKED, measured("Worse", "2.87"))
    assert found is not None
    assert "from 2.31 to 2.87 (standard error of the difference 0.04)" in found.message
