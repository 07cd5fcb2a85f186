"""Proves that the tensors of an F16 GGUF are those of the merged model, in the order in which llama.cpp wants them.

Of a tensor in an order that is not known here, the sorted values are compared: what the file holds is then proven, but
not that it stands in the right place. How the file predicts must decide that.
"""

import json
import math
import mmap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from finetune_trainer.export.exact.layouts import Layout, file_names, layouts
from finetune_trainer.export.gguf import header as gguf_header
from finetune_trainer.export.gguf.header import TensorInfo
from finetune_trainer.export.rejected_file import RejectedFile
from finetune_trainer.model.safetensors_header import Tensor
from finetune_trainer.model.tensor_files import Weights, weight_files
from finetune_trainer.runtime.cpus import one_thread_per_cpu

# Weights at a time.
_PIECE = 1 << 21
# ggml's numbers of the types that an F16 file has (ggml.h).
_F32, _F16 = 0, 1


def check(path: Path, merged: Path, advance: Callable[[int], None]) -> list[str]:
    """Compare an F16 GGUF with the merged model and return the weights whose place in the file is not proven.

    `advance` is called with the percentage of weights done.

    Raises:
        RejectedFile: a tensor holds other values.
    """
    head = gguf_header.read(path)
    architecture = str(head.values.get("general.architecture"))
    with (
        Weights(weight_files(merged)) as written,
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        one_thread_per_cpu() as threads,
    ):
        layers = int(head.values.get(f"{architecture}.block_count", 0))
        names = file_names(architecture, layers, written.tensors)
        comparison = _Comparison(written, data, json.loads((merged / "config.json").read_text()), threads)
        total = sum(math.prod(tensor.shape) for tensor in written.tensors.values())
        unproven, done = [], 0
        for name, tensor in written.tensors.items():
            info = head.tensors.get(names.get(name, ""))
            if info is None or not comparison.is_proven(tensor, info):
                unproven.append(name)
            done += math.prod(tensor.shape)
            advance(100 * done // total)
        # A matrix that was put together from several, such as the experts of a mixture.
        named = set(names.values())
        return unproven + [name for name, info in head.tensors.items() if len(info.shape) > 1 and name not in named]


class _Comparison:
    def __init__(self, written: Weights, data: mmap.mmap, config: dict[str, Any], threads: ThreadPoolExecutor) -> None:
        self._written, self._data, self._config, self._threads = written, data, config, threads

    def is_proven(self, tensor: Tensor, info: TensorInfo) -> bool:
        """Return whether the tensor is the weight.

        Raises:
            RejectedFile: it is a matrix of other values.
        """
        rows, columns = _rows(tensor.shape)
        in_file = math.prod(info.shape)
        # A vocabulary may be cut to the tokens that there are.
        if info.kind not in (_F16, _F32) or in_file % columns or in_file > rows * columns:
            return False
        kept = in_file // columns
        for layout in layouts(kept, self._config):
            if self._is_equal(tensor, info, layout, kept, columns):
                return True
        if (
            len(tensor.shape) > 1
            and in_file == rows * columns
            and not self._has_the_values(tensor, info, rows, columns)
        ):
            raise RejectedFile(f"the file's tensor for {tensor.name} is not the one of the merged model")
        return False

    def _is_equal(self, tensor: Tensor, info: TensorInfo, layout: Layout, rows: int, columns: int) -> bool:
        def same(part: tuple[int, int]) -> bool:
            import numpy as np

            wanted = layout.apply(self._weight(tensor, *part, columns))
            found = self._found(info, *part, columns)
            if info.kind == _F16 and wanted.dtype == np.float16:
                # Bit by bit: a NaN is no number to compare.
                return bool(np.array_equal(found.view(np.uint16), np.ascontiguousarray(wanted).view(np.uint16)))
            return bool(np.array_equal(found, wanted.astype(found.dtype)))

        parts = _parts(rows, columns, layout.unit)
        # The first one alone: it tells a wrong order.
        return same(next(parts)) and all(self._threads.map(same, parts))

    def _has_the_values(self, tensor: Tensor, info: TensorInfo, rows: int, columns: int) -> bool:
        """Return whether both have the same values, in any order: counted by their 16 bits."""
        import numpy as np

        def counted(part: tuple[int, int]) -> Any:
            found = self._found(info, *part, columns).astype(np.float16)
            weight = self._weight(tensor, *part, columns)
            counts = [np.bincount(x.view(np.uint16).ravel(), minlength=1 << 16) for x in (found, weight)]
            return counts[0] - counts[1]

        return not sum(self._threads.map(counted, _parts(rows, columns, 1))).any()

    def _weight(self, tensor: Tensor, start: int, stop: int, columns: int) -> Any:
        import numpy as np

        raw = self._written.bytes(tensor, 2 * start * columns, 2 * (stop - start) * columns)
        return raw.view(np.float16).reshape(-1, columns)

    def _found(self, info: TensorInfo, start: int, stop: int, columns: int) -> Any:
        import numpy as np

        kind = np.dtype(np.float16 if info.kind == _F16 else np.float32)
        place = info.start + kind.itemsize * start * columns
        return np.frombuffer(self._data, kind, (stop - start) * columns, place).reshape(-1, columns)


def _rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return rows and columns; a vector has one column, so that its numbers can be reordered as rows are."""
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)


def _parts(rows: int, columns: int, unit: int) -> Iterator[tuple[int, int]]:
    step = unit * max(1, _PIECE // (unit * columns))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
