"""What a stage's early end says to its user."""

from finetune_api import exit_codes
from finetune_trainer.errors import GuardError


def test_a_guard_says_what_it_found_and_that_the_job_is_not_at_fault() -> None:
    error = GuardError("row 3 reaches the model changed")
    assert error.message == (
        "row 3 reaches the model changed; this is a fault of the trainer image, not of this job: "
        "use another version of the image and report it"
    )
    assert error.reason == "InternalError"
    assert error.exit_code in exit_codes.PERMANENT
