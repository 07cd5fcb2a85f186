"""The precision of training: BF16 if the GPU supports it."""

from typing import Any, Literal

from finetune_trainer.errors import SettingsError
from finetune_trainer.gpu.device import GPU

Precision = Literal["bf16", "fp16", "fp32"]


def precision(requested: str, gpu: GPU | None) -> Precision:
    """Return the precision of training; a CPU always computes in 32 bit.

    Raises:
        SettingsError: BF16 on a GPU that does not support it.
    """
    if gpu is None:
        return "fp32"
    if requested == "BF16" and not gpu.has_bf16:
        raise SettingsError(
            f"spec.training.precision is BF16 and {gpu.name} has no BF16; set Auto or FP16, or choose a newer GPU"
        )
    return "bf16" if requested != "FP16" and gpu.has_bf16 else "fp16"


def dtype(name: Precision) -> Any:
    """Return the torch dtype."""
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[name]
