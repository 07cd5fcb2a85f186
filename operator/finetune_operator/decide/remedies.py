"""Remedies that several messages share, as whole sentences."""

from finetune_api.base import MAXIMUM_MESSAGE
from finetune_api.exit_codes import ExitCode
from finetune_api.status import Failure

RECREATE = "Delete this FineTuneJob and create it again."
REPLACE = (
    "To use the edit, run kubectl replace --force -f FILE: it deletes this FineTuneJob and creates it again, and its "
    "training starts from the beginning."
)
_CORRECT = "Nothing was trained, so the spec may still be corrected; then raise spec.retryGeneration."
_FIXED = (
    "This job has trained, so these fields are fixed: to change them, edit your file and run kubectl replace --force "
    "-f FILE. It deletes this FineTuneJob and creates it again, and its training starts from the beginning."
)
# The trainer's message then names settings.
_OF_SETTINGS = (ExitCode.SETTINGS, ExitCode.DATASET, ExitCode.MODEL, ExitCode.OUT_OF_GPU_MEMORY)


def with_way_to_edit(failure: Failure, *, trained: bool) -> Failure:
    """Return the failure of a job with how its spec can be changed, if that may be the remedy."""
    message = failure.message
    if "create it again" in message or (trained and failure.exit_code not in _OF_SETTINGS):
        return failure
    end = f" {_FIXED if trained else _CORRECT}"
    if not message.endswith((".", "!", "?")):
        end = f".{end}"
    return failure.model_copy(update={"message": message[: MAXIMUM_MESSAGE - len(end)] + end})
