"""Reads the headers of safetensors files, without the tensors.

The format: https://github.com/huggingface/safetensors#format
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from finetune_trainer.errors import ModelError
from finetune_trainer.sources.model_files import ModelFiles
from finetune_trainer.sources.resolved import ModelFile

_MAXIMUM_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Tensor:
    """One tensor and where its bytes are."""

    name: str
    file: ModelFile
    dtype: str
    shape: tuple[int, ...]
    # From the beginning of the file.
    start: int
    length: int


def read_tensors(model: ModelFiles, files: Iterable[ModelFile]) -> dict[str, Tensor]:
    """Return the tensors of all files by name.

    Raises:
        ModelError: a file is damaged or truncated.
    """
    found: dict[str, Tensor] = {}
    for file in files:
        size = int.from_bytes(model.read_ranges(file, [(0, 8)])[0], "little")
        if not 0 < size <= min(_MAXIMUM_HEADER_BYTES, file.size_bytes - 8):
            raise _damaged(file)
        try:
            header: dict[str, Any] = json.loads(model.read_ranges(file, [(8, size)])[0])
            header.pop("__metadata__", None)
            for name, entry in header.items():
                start, end = entry["data_offsets"]
                shape = tuple(entry["shape"])
                found[name] = Tensor(name, file, entry["dtype"], shape, 8 + size + start, end - start)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(file) from error
        if max((t.start + t.length for t in found.values() if t.file == file), default=0) > file.size_bytes:
            raise _damaged(file)
    return found


def read_rows(model: ModelFiles, tensor: Tensor, rows: Sequence[int]) -> list[bytes]:
    """Return the bytes of some rows of a two-dimensional tensor."""
    length = tensor.length // tensor.shape[0]
    return model.read_ranges(tensor.file, [(tensor.start + row * length, length) for row in rows])


def parameter_count(tensors: Iterable[Tensor], *, packed: bool) -> int:
    """Return the number of weights; `packed` files have two weights per byte, and tensors that describe them."""
    tensors = list(tensors)
    if not packed:
        return sum(prod(t.shape) for t in tensors)
    weights = (t for t in tensors if t.name.endswith((".weight", ".bias")))
    return sum(prod(t.shape) * (2 if t.dtype == "U8" else 1) for t in weights)


def _damaged(file: ModelFile) -> ModelError:
    return ModelError(
        f"{file.path} is damaged or truncated: its safetensors header does not fit its size; upload it again"
    )
