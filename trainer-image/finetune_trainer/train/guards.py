"""What must hold before the first step and after the last one, whatever the libraries did: prepare's figures."""

from collections.abc import Sequence

from finetune_trainer.errors import GuardError
from finetune_trainer.methods.rows import Row
from finetune_trainer.run_folder.prepared import Prepared


def check_steps(steps: int, description: Prepared) -> None:
    """Compare the number of optimizer steps with prepare's.

    Raises:
        GuardError: they differ.
    """
    if steps != description.total_steps:
        raise GuardError(f"train would take {steps} optimizer steps and prepare counted {description.total_steps}")


def check_rows(rows: Sequence[Row], description: Prepared) -> None:
    """Check that every row that is not truncated ends on a stop token which is learned: else answers would not end.

    Raises:
        GuardError: a row does not.
    """
    stops = set(description.stop_token_ids)
    endless = sum(not row.ends_on(stops) for row in rows)
    if endless > description.dataset.truncated:
        raise GuardError(
            f"{endless} of {len(rows)} rows do not end on a learned stop token, and prepare truncated only "
            f"{description.dataset.truncated}"
        )


def check_end(step: int, total_steps: int, *, ended_early: bool) -> None:
    """Check that the trainer library trained all steps.

    Raises:
        GuardError: it ended before, and not by early stopping.
    """
    if step != total_steps and not ended_early:
        raise GuardError(f"training ended after step {step} of {total_steps}")
