"""Which memory settings fit the GPU: the fastest ones whose estimate stays within the free memory."""

from collections.abc import Iterable, Sequence

from finetune_api import memory, shares
from finetune_api.memory import Estimate, Shape
from finetune_api.plan import Plan
from finetune_trainer import methods
from finetune_trainer.errors import OutOfGPUMemoryError
from finetune_trainer.gpu.memory_settings import Checkpointing, MemorySettings

# Where there is nothing to go by: without a GPU, and for a model whose config.json does not tell its sizes.
_USUAL_MICRO_BATCH = 2
_FROM_FAST_TO_FRUGAL: tuple[Checkpointing, ...] = ("None", "Standard", "Offload")
# An estimate may be off by so much.
_MARGIN = 0.05


def candidates(plan: Plan, processes: int = 1) -> list[MemorySettings]:
    """Return the settings that the plan allows, the fastest first.

    A larger micro-batch helps more than keeping activations does (benchmarks/README.md), so that it comes first.
    """
    training = plan.training
    size = shares.process_batch_size(training.batch_size, processes)
    micro = (
        [training.micro_batch_size] if training.micro_batch_size else [m for m in range(size, 0, -1) if size % m == 0]
    )
    asked = training.gradient_checkpointing
    modes = _FROM_FAST_TO_FRUGAL if asked == "Auto" else (asked,)
    return [MemorySettings(m, mode) for m in micro for mode in modes]


def usual(plan: Plan, processes: int = 1) -> MemorySettings:
    """Return the settings where nothing can be estimated."""
    training = plan.training
    size = shares.process_batch_size(training.batch_size, processes)
    micro = training.micro_batch_size or (_USUAL_MICRO_BATCH if size % _USUAL_MICRO_BATCH == 0 else 1)
    asked = training.gradient_checkpointing
    return MemorySettings(micro, "Offload" if asked == "Auto" else asked)


def longest(steps: Iterable[Sequence[int]], micro_batch_size: int) -> int:
    """Return the length, in tokens, that the largest micro-batch is padded to.

    `steps` has the lengths of each step's rows in the order in which micro-batches are cut from it.
    """
    worst = 0
    for step in steps:
        for start in range(0, len(step), micro_batch_size):
            part = step[start : start + micro_batch_size]
            worst = max(worst, len(part) * max(part))
    return -(-worst // micro_batch_size)


def estimate(
    plan: Plan, shape: Shape, memory_settings: MemorySettings, steps: Iterable[Sequence[int]], processes: int = 1
) -> Estimate:
    """Return what these settings take on each of `processes` GPUs for these steps (see `longest`)."""
    return memory.estimate(
        shape,
        footprint=methods.of(plan.training.method).footprint,
        nf4=plan.model.quantization == "NF4",
        rank=plan.training.lora.rank,
        target_modules=plan.training.lora.target_modules,
        micro_batch_size=memory_settings.micro_batch_size,
        longest=longest(steps, memory_settings.micro_batch_size),
        checkpointing=memory_settings.gradient_checkpointing,
        processes=processes,
    )


def first_settings(
    plan: Plan, shape: Shape | None, steps: Sequence[Sequence[int]], free_mib: int | None, processes: int = 1
) -> MemorySettings:
    """Return the settings to start with; `free_mib` is what is free before anything is loaded, None without a GPU.

    If none fits by the estimate, the most frugal ones are tried: an estimate refuses nothing by itself.
    """
    if shape is None or free_mib is None:
        return usual(plan, processes)
    settings = candidates(plan, processes)
    room = free_mib * (1 - _MARGIN)
    return next((r for r in settings if estimate(plan, shape, r, steps, processes).total_mib <= room), settings[-1])


def check(plan: Plan, shape: Shape | None, longest_row: int) -> int | None:
    """Return the MiB that the job takes at least, with the most frugal settings; None if nothing is known.

    Raises:
        OutOfGPUMemoryError: that is more than spec.compute.accelerator.memoryMiB.
    """
    if shape is None:
        return None
    parts = estimate(plan, shape, MemorySettings(1, "Offload"), [[longest_row]])
    if plan.gpu_memory_mib is not None and parts.total_mib > plan.gpu_memory_mib:
        raise OutOfGPUMemoryError(
            f"training needs about {parts.total_mib} MiB of GPU memory at least (weights {parts.weights}, adapter "
            f"{parts.adapter}, activations {parts.activations}, logits {parts.logits}, CUDA and reserve "
            f"{parts.cuda + parts.reserve}), and compute.accelerator.memoryMiB is {plan.gpu_memory_mib}; choose a "
            "smaller model, model.quantization NF4, a lower model.maxSequenceLength, or a larger GPU"
        )
    return parts.total_mib
