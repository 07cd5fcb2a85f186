"""How much a stage writes to its scratch space, from what prepare knows of the model and the rows."""

from finetune_api.plan import Plan
from finetune_api.status import ScratchStatus

_MIB = 1024 * 1024
# What libraries compile, the copies of the tokenizer beside every adapter, and logs.
_OTHER_BYTES = 1024 * _MIB
_WEIGHT_BYTES = 4
# Two moments, of a byte each or in 32 bit (https://arxiv.org/abs/2110.02861).
_MOMENTS_BYTES = {"AdamW8bit": 2, "AdamW": 8}
# An old checkpoint goes when the new one is written.
_CHECKPOINTS = 2
_16_BIT = 2


def need(
    plan: Plan,
    *,
    model_bytes: int,
    parameters: int,
    adapter_parameters: int,
    rows_bytes: int,
    original_bytes: int = 0,
) -> ScratchStatus:
    """Return what train and export have on disk at most at one time.

    Args:
        plan: where the model is, how it is trained and what is exported.
        model_bytes: of the pinned model's files.
        parameters: of the model.
        adapter_parameters: weights that are trained.
        rows_bytes: of the tokenized rows.
        original_bytes: of the files with the 16-bit weights, where a 4-bit model's adapter is merged into them.
    """
    fetched = 0 if plan.model.path is not None else model_bytes
    original = 0 if plan.export.original is None or plan.export.original.path is not None else original_bytes
    adapter = adapter_parameters * _WEIGHT_BYTES
    checkpoint = adapter + adapter_parameters * _MOMENTS_BYTES[plan.training.optimizer]
    # The best adapter, the final one, and one to start from.
    adapters = adapter * (3 if plan.model.adapter else 2)
    train = fetched + rows_bytes + _CHECKPOINTS * checkpoint + adapters
    export = max(adapter, rows_bytes)
    if plan.export.gguf:
        # The merged model and what is converted from it. Quantized files are smaller than the merged model, and are
        # made one at a time after it is gone.
        converted = 2 if "BF16" in plan.export.gguf else 1
        export = fetched + original + adapter + (1 + converted) * parameters * _16_BIT
    return ScratchStatus(train_mib=_mib(train), export_mib=_mib(export))


def _mib(size: int) -> int:
    return -(-(size + _OTHER_BYTES) // _MIB)
