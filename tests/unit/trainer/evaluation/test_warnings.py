"""Each warning is there exactly when it should be, with its figures and what to do."""

from typing import Any

import pytest

from finetune_api.status import EvaluationStatus
from finetune_trainer.evaluation.curve import Curve, CurvePoint
from finetune_trainer.evaluation.verdict import compare
from finetune_trainer.evaluation.warnings import warnings


def curve(*losses: float) -> Curve:
    return Curve([CurvePoint(step=12 * (n + 1), loss=loss) for n, loss in enumerate(losses)])


GOOD: dict[str, Any] = {
    "comparison": compare([2.0] * 10, [1.0] * 10),
    "curve": curve(2.0, 1.5, 1.2, 1.1, 1.0),
    "diverged": None,
    "kept_step": 60,
    "total_steps": 60,
    "patience": None,
    "forgetting": 0.1,
    "forgetting_limit": 0.5,
    "answer_flags": [[], []],
    "longer_outputs": 0.0,
}


def of(**changed: Any) -> list[str]:
    return warnings(**(GOOD | changed))


def test_a_good_run_has_none() -> None:
    assert of() == []


def test_an_early_stop_is_said_with_the_step_that_was_kept() -> None:
    assert of(curve=curve(1.0, 1.005, 1.01), kept_step=12, patience=2) == [
        "StoppedEarly: training ended after step 36 of 60, because the hold-out loss had not fallen for 2 measurements "
        "(training.earlyStoppingPatience); step 12 was kept; to train on, raise that field or leave it out"
    ]


@pytest.mark.parametrize(("patience", "total"), [(3, 60), (None, 60), (2, 36)], ids=["patient", "no-limit", "at-end"])
def test_a_run_that_did_all_its_steps_did_not_stop_early(patience: int | None, total: int) -> None:
    assert of(curve=curve(1.0, 1.005, 1.01), kept_step=12, patience=patience, total_steps=total) == []


def test_overfitting_is_said_with_the_step_that_was_kept() -> None:
    assert of(curve=curve(1.4, 1.2, 1.07, 1.3, 1.5), kept_step=36) == [
        "Overfitting: the hold-out loss was lowest after step 36 (1.07) and rose to 1.50 by step 60; that step "
        "was kept; fewer steps save time, more examples improve it"
    ]


def test_a_training_that_diverged_is_not_said_to_overfit() -> None:
    assert of(curve=curve(1.4, 1.2, 1.07, 1.3, 1.5), diverged="TrainingDiverged: it did") == [
        "TrainingDiverged: it did"
    ]


def test_overfitting_with_the_last_step_kept_says_how_to_keep_the_best() -> None:
    (warning,) = of(curve=curve(1.4, 1.2, 1.07, 1.3, 1.5), kept_step=60)

    assert "step 60 was kept; set training.keep to Best, or training.maxSteps to 36" in warning


@pytest.mark.parametrize("losses", [(), (1.0,), (1.2, 1.0, 1.01), (1.0, 1.0, 1.0), (3.0, 2.0, 1.0)])
def test_a_loss_that_did_not_really_rise_is_no_overfitting(losses: tuple[float, ...]) -> None:
    assert of(curve=curve(*losses)) == []


def test_few_rows_are_said_with_their_figures() -> None:
    assert of(comparison=compare([2.0] * 5, [1.5] * 5)) == [
        "NotEnoughEvidence: on 5 rows it never saw, the loss went from 2.00 to 1.50 (difference 0.50 +- 0.00), "
        "which may be chance; add examples, or raise dataset.holdout.percent"
    ]


def test_no_rows_are_said() -> None:
    (warning,) = of(comparison=None, curve=curve())

    assert warning.startswith("NotEnoughEvidence: there are no hold-out rows")


def test_a_worse_result_is_evidence_enough() -> None:
    assert of(comparison=compare([1.0] * 10, [2.0] * 10)) == []


def test_forgetting_is_said_with_measure_and_limit() -> None:
    (warning,) = of(forgetting=1.25)

    assert warning.startswith("Forgetting: on general questions the model has moved 1.25 nats per token away")
    assert "up to 0.50" in warning


@pytest.mark.parametrize("measured", [None, 0.0, 0.5])
def test_what_is_within_the_limit_is_not_forgetting(measured: float | None) -> None:
    assert of(forgetting=measured) == []


@pytest.mark.parametrize(
    ("flags", "begins"),
    [
        ([["Loop", "NoStop"], ["NoStop"]], "AnswersLoop: of 2 answers, 1 is repeating itself, 2 are cut off at"),
        ([["Empty"], []], "AnswersEmpty: of 2 answers, 1 is empty; look for"),
        ([["WrongLanguage"], []], "AnswersWrongLanguage: of 2 answers, 1 is in another language than the question;"),
        ([["NoStop"], []], "AnswersNeverStop: of 2 answers, 1 is cut off at evaluation.maxNewTokens; raise"),
        ([["Copied"], ["Copied"]], "AnswersCopied: of 2 answers, 2 are copied from the training data; train fewer"),
    ],
)
def test_flags_of_answers_are_one_warning_named_for_the_worst(flags: list[list[str]], begins: str) -> None:
    (warning,) = of(answer_flags=flags)

    assert warning.startswith(begins)


@pytest.mark.parametrize(("cut_off", "longer", "said"), [(5, 1.0, 0), (2, 0.2, 0), (3, 0.2, 1), (1, 0.0, 1)])
def test_being_cut_off_is_said_where_the_training_answers_are_shorter(cut_off: int, longer: float, said: int) -> None:
    flags = [["NoStop"]] * cut_off + [[]] * (5 - cut_off)

    assert len(of(answer_flags=flags, longer_outputs=longer)) == said


def test_all_at_once_fit_the_status() -> None:
    every = of(
        comparison=compare([2.0] * 5, [1.5] * 5),
        curve=curve(1.0, 9.0),
        forgetting=9.0,
        answer_flags=[["Loop", "WrongLanguage", "NoStop", "Copied"]] * 15 + [["Empty"]],
    )

    assert len(EvaluationStatus(warnings=every).warnings) == 4
