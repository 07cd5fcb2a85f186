"""Why a file is not published."""

from finetune_trainer.errors import ModelError


class RejectedFile(ModelError):  # noqa: N818 - a result of the proofs
    """The file is not the model that was trained, or worse than it."""

    def __init__(self, message: str, figures: dict[str, float | None] | None = None) -> None:
        """`figures`: what was measured, if the file was run."""
        super().__init__(message)
        self.figures = figures or {}
