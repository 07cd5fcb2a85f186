"""Remedies that several messages share, as whole sentences."""

RECREATE = "Delete this FineTuneJob and create it again."
CORRECT = "Nothing was trained, so the spec may be corrected; then raise spec.retryGeneration to start again."
REPLACE = (
    "To use the edit, run kubectl replace --force -f FILE: it deletes this FineTuneJob and creates it again, and its "
    "training starts from the beginning."
)
