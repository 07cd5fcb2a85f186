"""Checks that 16-bit weights are the ones that a 4-bit repository was made from."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

from finetune_trainer.errors import ModelError
from finetune_trainer.model import nf4
from finetune_trainer.model.base_weights import BaseWeight, BaseWeights
from finetune_trainer.model.merge_base import ADVICE
from finetune_trainer.model.safetensors_header import Tensor
from finetune_trainer.model.tensor_files import weight_files

# A factor of the error of rounding the original. Kernels round ties differently; weights that were trained further
# differ by more.
_TOLERANCE = 1.02
# A copy of the embeddings if they are tied, and then optional in the files.
_TIED = "lm_head.weight"


def check_listed(
    trained: Mapping[str, Tensor],
    original: Mapping[str, Tensor],
    config: Mapping[str, Any],
    original_config: Mapping[str, Any],
) -> None:
    """Check without reading the weights that `original` is in 16 bit and the same model.

    Raises:
        ModelError: it is not.
    """
    if original_config.get("quantization_config") or any(nf4.state_name(name, original) for name in original):
        raise ModelError(f"export.originalModel is quantized itself; {ADVICE}")
    for key in ("model_type", "architectures", "vocab_size"):
        if config.get(key) != original_config.get(key):
            raise _different(f"{key} is {original_config.get(key)}, not {config.get(key)}")
    for name, tensor in trained.items():
        if nf4.describes(name, trained):
            continue
        packed = nf4.state_name(name, trained) is not None
        if name not in original:
            if name == _TIED:
                continue
            raise _different(f"it has no {name}")
        # Two weights per byte; the shape is in the file, which is not downloaded yet.
        same = (
            (prod(original[name].shape) + 1) // 2 == tensor.length if packed else original[name].shape == tensor.shape
        )
        if not same:
            raise _different(f"{name} has another size")


def check_same(base: Path, original: Path) -> None:
    """Check that the 4-bit weights of `base` are those of `original`, rounded: all shapes, and one layer's weights.

    Raises:
        ModelError: they are not.
    """
    with BaseWeights(weight_files(base), None) as rounded, BaseWeights(weight_files(original), None) as exact:
        for name, shape in rounded.shapes.items():
            if name not in exact.shapes and name == _TIED:
                continue
            if exact.shapes.get(name) != shape:
                raise _different(f"{name} has another shape, or is missing")
        kinds = list(rounded.stored_in_4bit().items())
        # A layer in the middle: fine-tuning may leave the first ones unchanged.
        name, kind = kinds[len(kinds) // 2]
        with ThreadPoolExecutor(1) as thread:
            stored, wanted = (_whole(weights.open(name, thread)) for weights in (rounded, exact))
        expected, found = _error(_rounded(wanted, kind), wanted), _error(stored, wanted)
        # Written as "not <=" to catch NaN, too.
        if not found <= expected * _TOLERANCE:
            raise _different(
                f"{name} differs from the 4-bit weights by {found:.1%}, and rounding explains {expected:.1%}"
            )


def _whole(weight: BaseWeight) -> Any:
    return weight.piece(0, prod(weight.shape)).float()


def _rounded(weight: Any, kind: nf4.Kind) -> Any:
    codes, state = nf4.quantize([lambda: weight], (weight.numel(),), kind=kind)
    return nf4.Decoder(state).decode(codes, 0)


def _error(rounded: Any, exact: Any) -> float:
    """Return the relative root-mean-square error."""
    return float((rounded - exact).norm() / exact.norm())


def _different(what: str) -> ModelError:
    return ModelError(f"export.originalModel is not the model that spec.model was made from: {what}; {ADVICE}")
