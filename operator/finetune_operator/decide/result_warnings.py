"""What a user should know about a result that counts as a success: an event for each, and the gravest in Ready.

The events follow from what a stage's result changes in the status. That result is taken in once, with the status that
reports it, so that an operator that starts again repeats none.
"""

import re
from collections.abc import Iterator

from finetune_api.status import FineTuneJobStatus
from finetune_operator.decide.decision import KubernetesEvent
from finetune_operator.decide.evaluation_gate import evaluated

# A worse model, or another training than was asked for.
_IN_READY = ("Worse", "StoppedEarly", "DatasetPartlySeen", "TrainingDiverged", "FileRejected")
_REASON = re.compile(r"[A-Z][A-Za-z0-9]{0,127}")


def events(old: FineTuneJobStatus, new: FineTuneJobStatus) -> list[KubernetesEvent]:
    """Return a Warning event for each warning that is new."""
    known = list(_warnings(old))
    return [KubernetesEvent("Warning", *warning) for warning in _warnings(new) if warning not in known]


def sentences(found: FineTuneJobStatus) -> str:
    """Return what Ready adds to its message, each sentence after a space; empty if nothing is wrong."""
    return "".join(f" {reason}: {message.rstrip('.')}." for reason, message in _warnings(found) if reason in _IN_READY)


def _warnings(found: FineTuneJobStatus) -> Iterator[tuple[str, str]]:
    """Return reason and message of each warning, the worst first."""
    verdict = evaluated(found.evaluation)
    if verdict and verdict.reason == "Worse":
        yield verdict.reason, verdict.message
    for artifact in found.artifacts:
        if artifact.rejected is not None:
            yield "FileRejected", f"{artifact.name}: {artifact.rejected}"
    for text in (
        *(found.evaluation.warnings if found.evaluation else ()),
        *(found.dataset.warnings if found.dataset else ()),
    ):
        # A warning starts with its reason, as a separate word.
        reason, colon, message = text.partition(": ")
        yield (reason, message) if colon and _REASON.fullmatch(reason) else ("TrainerWarning", text)
