"""The trainer's exit codes. The numbers are a contract between operators and trainers of different versions."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `python -m finetune_trainer`; those from sysexits.h keep their meaning if possible."""

    OK = 0
    SETTINGS = 64
    DATASET = 65
    MODEL = 66
    UNAVAILABLE = 69
    # EX_SOFTWARE: a guard of the trainer found its own work wrong.
    SOFTWARE = 70
    # Only from `--report`. EX_OSFILE: a file that should exist does not.
    NO_RESULT = 72
    PREEMPTED = 75
    ACCESS_DENIED = 77
    OUT_OF_GPU_MEMORY = 79
    GPU_UNUSABLE = 80
    HUNG = 81
    DIVERGED = 82


# A retry cannot help: the job has to be changed first, or, for SOFTWARE, the trainer image.
PERMANENT = frozenset(
    {
        ExitCode.SETTINGS,
        ExitCode.DATASET,
        ExitCode.MODEL,
        ExitCode.SOFTWARE,
        ExitCode.ACCESS_DENIED,
        ExitCode.OUT_OF_GPU_MEMORY,
        ExitCode.DIVERGED,
    }
)
# These do not use up a retry if the checkpoint moved on since the last attempt.
UNCOUNTED_WITH_PROGRESS = frozenset({ExitCode.UNAVAILABLE, ExitCode.PREEMPTED})

REASONS: dict[int, str] = {
    ExitCode.SETTINGS: "InvalidSettings",
    ExitCode.DATASET: "InvalidDataset",
    ExitCode.MODEL: "ModelUnusable",
    ExitCode.UNAVAILABLE: "StorageUnavailable",
    ExitCode.SOFTWARE: "InternalError",
    ExitCode.NO_RESULT: "ResultMissing",
    ExitCode.PREEMPTED: "Preempted",
    ExitCode.ACCESS_DENIED: "AccessDenied",
    ExitCode.OUT_OF_GPU_MEMORY: "OutOfGPUMemory",
    ExitCode.GPU_UNUSABLE: "GPUUnusable",
    ExitCode.HUNG: "Hung",
    ExitCode.DIVERGED: "TrainingDiverged",
}


def reason(code: int) -> str:
    """Return the CamelCase reason of an exit code; unknown codes are Crashed."""
    return REASONS.get(code, "Crashed")
