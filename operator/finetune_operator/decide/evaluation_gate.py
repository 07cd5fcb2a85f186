"""What the verdict on the hold-out rows means for a job: the condition Evaluated, and `evaluation.gate`."""

from dataclasses import dataclass

from finetune_api.spec import Gate
from finetune_api.status import EvaluationStatus, Failure
from finetune_operator.decide.remedies import RECREATE

GATE_MISSED = "GateMissed"
_NEXT = {
    "Worse": "Lower training.learningRate, train fewer steps, or check the examples",
    "NotEnoughEvidence": "Add examples, train longer, or hold out more rows (dataset.holdout)",
}
_NO_VERDICT = "the hold-out rows gave no verdict"


@dataclass(frozen=True)
class Evaluated:
    """The condition Evaluated: True only if the result is better by more than chance."""

    better: bool
    reason: str
    message: str


def evaluated(evaluation: EvaluationStatus | None) -> Evaluated | None:
    """Return the condition, or None while there is no verdict."""
    if evaluation is None or evaluation.verdict is None:
        return None
    text = _words(evaluation)
    return Evaluated(evaluation.verdict == "Better", evaluation.verdict, f"{text[0].upper()}{text[1:]}.")


def missed(gate: Gate | None, evaluation: EvaluationStatus | None) -> Failure | None:
    """Return why a trained result does not pass the gate, whatever `gate.onMiss` says; None if it passes."""
    verdict = evaluation.verdict if evaluation else None
    if gate is None or verdict == "Better":
        return None
    message = (
        f"The result does not pass evaluation.gate: {_words(evaluation) if evaluation else _NO_VERDICT}. "
        f"{_NEXT.get(verdict or 'NotEnoughEvidence')}, or set evaluation.gate.onMiss to Warn. {RECREATE}"
    )
    return Failure(stage="train", reason=GATE_MISSED, message=message)


def _words(evaluation: EvaluationStatus) -> str:
    if evaluation.verdict is None:
        return _NO_VERDICT
    chance = "which may be chance" if evaluation.verdict == "NotEnoughEvidence" else "more than chance explains"
    before, after = evaluation.holdout_loss_base, evaluation.holdout_loss_tuned
    if before is None or after is None:
        return f"the verdict on the hold-out rows is {evaluation.verdict}"
    error = f" (standard error of the difference {evaluation.standard_error})" if evaluation.standard_error else ""
    return f"the loss on the hold-out rows went from {before} to {after}{error}, {chance}"
