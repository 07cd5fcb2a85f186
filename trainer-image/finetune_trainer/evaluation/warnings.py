"""Warnings about a result, each with a remedy."""

from collections.abc import Sequence

from finetune_api.report import AnswerFlag
from finetune_trainer.evaluation.curve import Curve
from finetune_trainer.evaluation.verdict import Comparison

# A rise of a smaller share of the lowest loss is noise.
OVERFITTING = 0.02
# With about ten questions, up to this factor more answers than expected are cut off by chance.
_CUT_OFF = 2.0
# The worst first: the warning is named after the worst.
_ANSWERS: dict[AnswerFlag, tuple[str, str, str]] = {
    "Empty": (
        "AnswersEmpty",
        "{} empty",
        "look for empty or very short outputs in the dataset, or lower training.learningRate",
    ),
    "RepeatsQuestion": (
        "AnswersRepeatQuestion",
        "{} repeating the question",
        "look for outputs in the dataset that repeat their question, or train more steps",
    ),
    "Loop": (
        "AnswersLoop",
        "{} repeating itself",
        "lower training.learningRate or train fewer steps, and look for repetition in the dataset",
    ),
    "WrongLanguage": (
        "AnswersWrongLanguage",
        "{} in another language than the question",
        "add examples in the language of your users",
    ),
    "NoStop": (
        "AnswersNeverStop",
        "{} cut off at evaluation.maxNewTokens",
        "raise evaluation.maxNewTokens, or make the outputs in the dataset shorter",
    ),
    "Copied": (
        "AnswersCopied",
        "{} copied from the training data",
        "train fewer steps, or add examples: the model has learned them by heart",
    ),
}


def warnings(
    *,
    comparison: Comparison | None,
    curve: Curve,
    diverged: str | None,
    kept_step: int,
    total_steps: int,
    patience: int | None,
    forgetting: float | None,
    forgetting_limit: float,
    answer_flags: Sequence[Sequence[AnswerFlag]],
    longer_outputs: float,
) -> list[str]:
    """Return the warnings.

    `diverged` is that of a training that diverged, which explains why the loss rose. `answer_flags` are those of the
    trained model, one list per question; `longer_outputs` is the share of the training answers that are longer than
    evaluation.maxNewTokens.
    """
    found = [
        _stopped_early(curve, kept_step, total_steps, patience),
        diverged or _overfitting(curve, kept_step),
        _evidence(comparison),
        _forgetting(forgetting, forgetting_limit),
        _answers(answer_flags, longer_outputs),
    ]
    return [warning for warning in found if warning is not None]


def _stopped_early(curve: Curve, kept_step: int, total_steps: int, patience: int | None) -> str | None:
    if not curve.exhausted(patience):
        return None
    last = max(point.step for point in curve.points)
    if last >= total_steps:
        return None
    return (
        f"StoppedEarly: training ended after step {last} of {total_steps}, because the hold-out loss had not fallen "
        f"for {patience} measurements (training.earlyStoppingPatience); step {kept_step} was kept; to train on, raise "
        "that field or leave it out"
    )


def _overfitting(curve: Curve, kept_step: int) -> str | None:
    if not curve.points:
        return None
    last = max(curve.points, key=lambda point: point.step)
    best = min(curve.points, key=lambda point: (point.loss, point.step))
    if last.loss - best.loss <= OVERFITTING * abs(best.loss):
        return None
    advice = (
        "that step was kept; fewer steps save time, more examples improve it"
        if kept_step == best.step
        else f"step {kept_step} was kept; set training.keep to Best, or training.maxSteps to {best.step}"
    )
    return (
        f"Overfitting: the hold-out loss was lowest after step {best.step} ({best.loss:.2f}) and rose to "
        f"{last.loss:.2f} by step {last.step}; {advice}"
    )


def _evidence(comparison: Comparison | None) -> str | None:
    fix = "add examples, or raise dataset.holdout.percent"
    if comparison is None:
        return f"NotEnoughEvidence: there are no hold-out rows to judge the result; {fix}"
    if comparison.verdict != "NotEnoughEvidence":
        return None
    return f"NotEnoughEvidence: {comparison.sentence[0].lower()}{comparison.sentence[1:].rstrip('.')}; {fix}"


def _forgetting(measured: float | None, limit: float) -> str | None:
    if measured is None or measured <= limit:
        return None
    return (
        f"Forgetting: on general questions the model has moved {measured:.2f} nats per token away from the base "
        f"(up to {limit:.2f} is usual); lower training.learningRate, train fewer steps, or mix general examples in"
    )


def _answers(found: Sequence[Sequence[AnswerFlag]], longer_outputs: float) -> str | None:
    counts = {flag: sum(flag in flags for flags in found) for flag in _ANSWERS}
    # A model trained on long answers gives long answers: only a higher share of cut-off answers is a warning.
    if counts["NoStop"] <= _CUT_OFF * longer_outputs * len(found):
        counts["NoStop"] = 0
    parts = [(flag, count) for flag, count in counts.items() if count]
    if not parts:
        return None
    name, _, fix = _ANSWERS[parts[0][0]]
    listed = ", ".join(_ANSWERS[flag][1].format(_are(count)) for flag, count in parts)
    return f"{name}: of {len(found)} answers, {listed}; {fix}; see answers.json"


def _are(count: int) -> str:
    return "1 is" if count == 1 else f"{count} are"
