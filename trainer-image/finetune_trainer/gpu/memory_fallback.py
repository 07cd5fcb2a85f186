"""The fallback when GPU memory runs out: more frugal settings, one step at a time. The result stays the same."""

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.plan import TrainingPlan
from finetune_trainer.gpu.memory_settings import MemorySettings


@dataclass(frozen=True)
class Shortage:
    """How much memory there was and how much was needed, in MiB."""

    gpu: str
    # Before anything was loaded.
    free_mib: int
    # What was reserved when it ran out, plus what could not be allocated: the job needs more than this.
    needed_mib: int


def more_frugal(memory_settings: MemorySettings, batch_size: int) -> MemorySettings | None:
    """Return the next settings, or None after the last ones; `batch_size` is that of one process.

    Recompute activations; then halve the micro-batch down to 2; then keep activations in host memory; then one
    example at a time.
    """
    micro = memory_settings.micro_batch_size
    half = max((m for m in range(1, micro // 2 + 1) if batch_size % m == 0), default=1)
    if memory_settings.gradient_checkpointing == "None":
        return MemorySettings(micro, "Standard")
    if memory_settings.gradient_checkpointing == "Standard":
        return MemorySettings(half, "Standard") if half > 1 else MemorySettings(micro, "Offload")
    return MemorySettings(half, "Offload") if micro > 1 else None


def in_words(memory_settings: MemorySettings) -> str:
    """Return the settings by their names in the plan."""
    micro, checkpointing = memory_settings.micro_batch_size, memory_settings.gradient_checkpointing
    return f"microBatchSize {micro} with gradientCheckpointing {checkpointing}"


def stepped_down(training: TrainingPlan, shortage: Shortage, failed: MemorySettings, following: MemorySettings) -> str:
    """Return the log line between two attempts."""
    asked = [
        f"spec.training.{name}"
        for name, set_by_user, changed in (
            ("microBatchSize", training.micro_batch_size is not None, failed.micro_batch_size),
            ("gradientCheckpointing", training.gradient_checkpointing != "Auto", failed.gradient_checkpointing),
        )
        if set_by_user and changed not in (following.micro_batch_size, following.gradient_checkpointing)
    ]
    instead = f", instead of the job's {' and '.join(asked)}" if asked else ""
    return (
        f"{in_words(failed)} needs more than {shortage.needed_mib} MiB of GPU memory and {shortage.gpu} had "
        f"{shortage.free_mib} MiB free; continuing with {in_words(following)}{instead}: the result stays the same"
    )


def exhausted(shortage: Shortage, tried: Sequence[MemorySettings]) -> str:
    """Return the sentence for the user after the last settings."""
    return (
        f"the GPU's memory is too small for this job: {shortage.gpu} had {shortage.free_mib} MiB free, and even "
        f"{in_words(tried[-1])} needs more than {shortage.needed_mib} MiB (tried: "
        f"{', '.join(f'{r.micro_batch_size} {r.gradient_checkpointing}' for r in tried)}); lower "
        "spec.model.maxSequenceLength or spec.training.lora.rank, choose a smaller model, or a GPU with more memory"
    )
