"""Computes how much a stage writes to its scratch space, from what prepare knows about model and rows."""

from finetune_api.plan import ExportPlan, Plan
from finetune_api.status import ScratchStatus

_MIB = 1024 * 1024
# For compiled kernels, the copies of the tokenizer beside every adapter, and logs.
_OTHER_BYTES = 1024 * _MIB
_WEIGHT_BYTES = 4
# Two moments, in 8 or in 32 bit (https://arxiv.org/abs/2110.02861).
_MOMENTS_BYTES = {"AdamW8bit": 2, "AdamW": 8}
# An old checkpoint is deleted after the new one is written.
_CHECKPOINTS = 2
_16_BIT = 2
# As a share of a 16-bit file: Q8_0 has 8.5 bits per weight. IQ and K types are smaller, even if llama.cpp uses another
# type for rows that are not a multiple of 256.
_LARGEST_QUANTIZED = 8.5 / 16


def need(
    plan: Plan,
    *,
    model_bytes: int,
    parameters: int,
    adapter_parameters: int,
    rows_bytes: int,
    original_bytes: int = 0,
) -> ScratchStatus:
    """Return the most that train and export have on disk at one time.

    Args:
        plan: where the model is, how it is trained and what is exported.
        model_bytes: size of the pinned model's files.
        parameters: number of the model's weights.
        adapter_parameters: number of trained weights.
        rows_bytes: size of the tokenized rows.
        original_bytes: size of the 16-bit weights, if a 4-bit model's adapter is merged into them.
    """
    fetched = 0 if plan.model.path is not None else model_bytes
    original = 0 if plan.export.original is None or plan.export.original.path is not None else original_bytes
    adapter = adapter_parameters * _WEIGHT_BYTES
    checkpoint = adapter + adapter_parameters * _MOMENTS_BYTES[plan.training.optimizer]
    # The best adapter, the last one, and one to start from.
    adapters = adapter * (3 if plan.model.adapter else 2)
    train = fetched + rows_bytes + _CHECKPOINTS * checkpoint + adapters
    export = max(adapter, rows_bytes)
    if plan.export.merges or plan.export.lora_gguf:
        # An importance matrix is measured on the rows.
        export = fetched + original + adapter + rows_bytes + _made(plan.export, parameters * _16_BIT, adapter)
    return ScratchStatus(train_mib=_mib(train), export_mib=_mib(export))


def _made(export: ExportPlan, model_16_bit: int, adapter: int) -> int:
    """Return the most bytes that the files made by export take at one time.

    A file is made while the one before it is uploaded, and the F16 file, which the others are made of, stays.
    """
    if not export.merges:
        # The adapter's GGUF, and one of the base to verify it with.
        return adapter + model_16_bit
    quantized = [gguf_type for gguf_type in export.gguf if gguf_type not in ("F16", "BF16")]
    # The merged model and its conversions. Two quantized files are not larger than it.
    made = (3 if "BF16" in export.gguf else 2) * model_16_bit
    if export.merged and quantized:
        # It is deleted only after its upload, while the first quantized file is made.
        made = max(made, 2 * model_16_bit + int(model_16_bit * _LARGEST_QUANTIZED))
    return made + (adapter if export.lora_gguf else 0)


def _mib(size: int) -> int:
    return -(-(size + _OTHER_BYTES) // _MIB)
