"""How a stage ends early: StageError and its subclasses."""

import traceback
from pathlib import Path

from finetune_api.exit_codes import ExitCode, reason

# Exit codes without a known cause: an unexpected exception, and Ctrl-C.
CRASHED = 1
INTERRUPTED = 130


class StageError(Exception):
    """Ends the stage with an exit code and one sentence for the user: what happened, where, and what to change."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message

    @property
    def reason(self) -> str:
        """CamelCase, as in status.failure.reason."""
        return reason(self.exit_code)


class SettingsError(StageError):
    """The job's settings cannot work (64)."""

    def __init__(self, message: str) -> None:
        super().__init__(ExitCode.SETTINGS, message)


class DatasetError(StageError):
    """The dataset cannot be used (65)."""

    def __init__(self, message: str) -> None:
        super().__init__(ExitCode.DATASET, message)


class ModelError(StageError):
    """The model was not found or cannot be used (66)."""

    def __init__(self, message: str) -> None:
        super().__init__(ExitCode.MODEL, message)


class UnavailableError(StageError):
    """Storage or the network did not answer (69); trying again may help."""

    def __init__(self, message: str) -> None:
        super().__init__(ExitCode.UNAVAILABLE, message)


class NoAnswerError(UnavailableError):
    """A server did not answer, or not now; see `network.patience`, which tries again."""

    def __init__(self, message: str, *, unknown_name: bool = False) -> None:
        """`unknown_name`: DNS does not know the server."""
        super().__init__(message)
        self.unknown_name = unknown_name


class GuardError(StageError):
    """The trainer, or a library of it, did something else than it should (70): no job can cause or mend that."""

    def __init__(self, found: str) -> None:
        """`found` says what is wrong, without a full stop, such as `row 3 reaches the model changed`."""
        super().__init__(
            ExitCode.SOFTWARE,
            f"{found}; this is a fault of the trainer image, not of this job: use another version of the image and "
            "report it",
        )


class NoResultError(StageError):
    """There is no result to report (72); the stage has to run."""

    def __init__(self, message: str) -> None:
        super().__init__(ExitCode.NO_RESULT, message)


class Preempted(StageError):  # noqa: N818 - it is not an error
    """The pod was asked to stop; a checkpoint is saved (75)."""

    def __init__(self, message: str) -> None:
        super().__init__(ExitCode.PREEMPTED, message)


class AccessDeniedError(StageError):
    """Credentials were refused (77)."""

    def __init__(self, message: str) -> None:
        super().__init__(ExitCode.ACCESS_DENIED, message)


class OutOfGPUMemoryError(StageError):
    """The model does not fit the GPU (79)."""

    def __init__(self, message: str) -> None:
        super().__init__(ExitCode.OUT_OF_GPU_MEMORY, message)


class GPUUnusableError(StageError):
    """This node's GPU cannot be used (80)."""

    def __init__(self, message: str) -> None:
        super().__init__(ExitCode.GPU_UNUSABLE, message)


class HungError(StageError):
    """Training stopped making progress (81)."""

    def __init__(self, seconds: int) -> None:
        super().__init__(
            ExitCode.HUNG,
            f"training made no progress for {seconds} s and was killed; the log shows where each thread was. If a step "
            "can take longer than that, raise spec.training.hangTimeoutSeconds",
        )


class DivergedError(StageError):
    """The loss rose instead of falling, and there is no result worth keeping (82)."""

    def __init__(self, message: str) -> None:
        super().__init__(ExitCode.DIVERGED, message)


def unexpected(stage: str, error: BaseException, log: Path) -> StageError:
    """Return what a user reads of an exception that nobody expected; its traceback is appended to the file `log`."""
    with log.open("a", encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    return StageError(CRASHED, f"unexpected {type(error).__name__} in {stage}")
