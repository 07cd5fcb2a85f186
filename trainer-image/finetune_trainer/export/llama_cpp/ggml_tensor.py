"""The header of ggml's tensors, as llama.cpp passes them to the evaluation callback."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

_DIMENSIONS = 4
_SOURCES = 10
_PARAMETER_BYTES = 64
_NAME_BYTES = 64
_FLOAT_BYTES = 4


class GGMLTensor(ctypes.Structure):
    """`struct ggml_tensor` of ggml.h, up to the name; its sizes are GGML_MAX_... there."""


GGMLTensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    # Elements and strides in bytes, by dimension; the first one varies fastest.
    ("ne", ctypes.c_int64 * _DIMENSIONS),
    ("nb", ctypes.c_size_t * _DIMENSIONS),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * (_PARAMETER_BYTES // 4)),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(GGMLTensor) * _SOURCES),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * _NAME_BYTES),
]


def operation(tensor: GGMLTensor) -> str:
    """Return the operation that computes it, such as MUL_MAT."""
    name: bytes = _library().ggml_op_name(tensor.op)
    return name.decode()


def array(tensor: GGMLTensor, kind: Any) -> Any:
    """Return a tensor of 4-byte numbers in main memory as an array, slowest dimension first.

    The array is a view, which is valid until the callback returns.
    """
    import numpy as np

    shape, strides = tuple(reversed(tensor.ne)), tuple(reversed(tensor.nb))
    length = _FLOAT_BYTES + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    memory = (ctypes.c_byte * length).from_address(tensor.data)
    return np.ndarray(shape, kind, memory, strides=strides)


@cache
def _library() -> Any:
    import llama_cpp

    library = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    library.ggml_op_name.restype = ctypes.c_char_p
    return library
