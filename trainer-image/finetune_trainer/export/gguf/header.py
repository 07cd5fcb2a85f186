"""Reads the header of a GGUF file: metadata and tensor shapes, without the weights.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. gguf.GGUFReader makes arrays of every string: for
a file of 310 MB with 128,256 tokens and 280,147 merges it takes 11.9 s of CPU and 1.3 GB, this module 0.27 s.
"""

import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from finetune_trainer.errors import ModelError

_MAGIC = b"GGUF"
# The only difference: version 3 may be big-endian.
_VERSIONS = (2, 3)
_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_LONGEST_STRING = 16 * 1024 * 1024
_MOST_DIMENSIONS = 4
_ALIGNMENT, _DEFAULT_ALIGNMENT = "general.alignment", 32

Value = str | int | float | bool


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor is."""

    # Fastest dimension first, as in the file.
    shape: tuple[int, ...]
    # ggml's number of the type.
    kind: int
    # From the beginning of the file, in bytes.
    start: int


@dataclass(frozen=True)
class Header:
    """The header of one file."""

    values: dict[str, Value]
    # Lengths of array values.
    arrays: dict[str, int]
    tensors: dict[str, TensorInfo]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """By name; fastest dimension first."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}


def read(path: Path) -> Header:
    """Read the header of `path`.

    Raises:
        ModelError: it is not a GGUF file, or it is truncated.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            return _read(file, size)
    except (ValueError, struct.error) as error:
        raise ModelError(f"{path.name} is not a complete GGUF file: {error}") from error


def _read(file: BinaryIO, size: int) -> Header:
    if file.read(4) != _MAGIC or _number(file, "<I") not in _VERSIONS:
        raise ValueError("it does not start like one")
    tensors, entries = int(_number(file, "<Q")), int(_number(file, "<Q"))
    values: dict[str, Value] = {}
    arrays: dict[str, int] = {}
    for _ in range(entries):
        key, kind = _string(file), int(_number(file, "<I"))
        if kind == _ARRAY:
            arrays[key] = _skip_array(file)
        else:
            values[key] = _value(file, kind)
    found: dict[str, TensorInfo] = {}
    for _ in range(tensors):
        name, dimensions = _string(file), int(_number(file, "<I"))
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"{name} has {dimensions} dimensions")
        shape = tuple(int(_number(file, "<Q")) for _ in range(dimensions))
        kind, offset = int(_number(file, "<I")), int(_number(file, "<Q"))
        if offset > size - file.tell():
            raise ValueError(f"{name} is beyond its end")
        found[name] = TensorInfo(shape, kind, offset)
    alignment = int(values.get(_ALIGNMENT, _DEFAULT_ALIGNMENT))
    # The tensors begin at the next multiple.
    begin = -(-file.tell() // alignment) * alignment
    return Header(values, arrays, {n: replace(t, start=begin + t.start) for n, t in found.items()})


def _number(file: BinaryIO, kind: str) -> int | float | bool:
    found: int | float | bool = struct.unpack(kind, file.read(struct.calcsize(kind)))[0]
    return found


def _string(file: BinaryIO) -> str:
    length = int(_number(file, "<Q"))
    data = file.read(length) if length <= _LONGEST_STRING else b""
    if len(data) != length:
        raise ValueError("a string in its header is truncated")
    return data.decode(errors="replace")


def _value(file: BinaryIO, kind: int) -> Value:
    if kind == _STRING:
        return _string(file)
    if kind not in _FORMATS:
        raise ValueError(f"its header has a value of unknown type {kind}")
    return _number(file, _FORMATS[kind])


def _skip_array(file: BinaryIO) -> int:
    kind, length = int(_number(file, "<I")), int(_number(file, "<Q"))
    if kind in _FORMATS:
        file.seek(length * struct.calcsize(_FORMATS[kind]), 1)
    else:
        for _ in range(length):
            _skip_array(file) if kind == _ARRAY else _value(file, kind)
    return length
