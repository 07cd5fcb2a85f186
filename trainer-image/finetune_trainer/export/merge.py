"""Adds the adapter to the base's weights, piece by piece, on all CPUs.

W' = W + s B A in 32 bit, rounded once to F16. W is read as it is stored, or as training saw it (`base_weights`). One
thread reads, computes and writes a piece, so memory is a few pieces per thread, whatever the size of the files.
"""

import json
import math
import os
import shutil
import struct
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from finetune_trainer.errors import ModelError
from finetune_trainer.model.adapter import CHAT_TEMPLATE
from finetune_trainer.model.base_weights import BaseWeight, BaseWeights, Loading
from finetune_trainer.model.lora_weights import LoRAWeights
from finetune_trainer.model.original_weights import check_same
from finetune_trainer.model.tensor_files import weight_files
from finetune_trainer.runtime.cpus import cpus, one_thread_per_cpu
from finetune_trainer.sources.model_files import INDEX, SINGLE

# The largest finite F16 number.
F16_LARGEST = 65504.0
# Weights at a time: in 32 bit they fit in a CPU's cache.
_PIECE = 1 << 20


def merge(
    base: Path,
    adapter_folder: Path,
    target: Path,
    original: Path | None,
    loaded: Loading | None,
    advance: Callable[[int], None],
) -> None:
    """Write the merged model to `target` as F16 safetensors, with the base's configuration and tokenizer.

    Existing files are kept, so `target` must not contain files of another adapter or other weights.

    Args:
        base: the model that was trained.
        adapter_folder: what was trained.
        target: the folder to write.
        original: 16-bit weights to merge into instead, for a base that is stored in 4 bit.
        loaded: how training loaded the base, to merge into the weights that training saw. None: into the stored ones.
        advance: is called with the percentage of bytes done.

    Raises:
        ModelError: adapter, base and original do not match, or a weight exceeds the range of F16.
    """
    weights = base if original is None else original
    if original is not None:
        check_same(base, original)
    files = weight_files(weights)
    with (
        LoRAWeights(adapter_folder) as lora,
        BaseWeights(files, loaded) as read,
    ):
        lora.check_fits(read.shapes)
        target.mkdir(parents=True, exist_ok=True)
        with one_thread_per_cpu() as threads:
            _Writer(read, lora, target, threads, advance).write(files)
        _write_index(read, target)
    _copy_other_files(base, adapter_folder, target)


class _Writer:
    """Writes the files, one after another."""

    def __init__(
        self,
        read: BaseWeights,
        lora: LoRAWeights,
        target: Path,
        threads: ThreadPoolExecutor,
        advance: Callable[[int], None],
    ) -> None:
        self._read, self._lora, self._target, self._threads, self._advance = read, lora, target, threads, advance
        self._size = 2 * sum(math.prod(shape) for shape in read.shapes.values())
        self._done = 0
        # Weights that differ from the base's after the merge.
        self._differing: set[str] = set()

    def write(self, files: list[Path]) -> None:
        for path in files:
            names = self._read.names(path.name)
            target = self._target / path.name
            if names and not target.exists():
                partial = target.with_name(f"{path.name}.part")
                self._write_file(names, partial)
                partial.replace(target)
            else:
                self._count(2 * sum(math.prod(self._read.shapes[name]) for name in names))

    def _write_file(self, names: list[str], target: Path) -> None:
        shapes = {name: self._read.shapes[name] for name in names}
        with target.open("wb", buffering=0) as out:
            offset = write_header(out, shapes)
            # Reserves the size, so that a full disk shows before the work.
            os.truncate(out.fileno(), offset + 2 * sum(math.prod(shape) for shape in shapes.values()))
            waiting: deque[Future[int]] = deque()
            try:
                for name in names:
                    weight = self._read.open(name, self._threads)
                    factors = self._lora.factors(name)
                    for start, stop in pieces(weight.shape, weight.unit):
                        place = offset + 2 * start
                        waiting.append(
                            self._threads.submit(self._write_piece, out.fileno(), weight, factors, start, stop, place)
                        )
                        # A piece takes memory only once it is started; the queue holds no more than numbers and open
                        # weights.
                        while len(waiting) > 4 * cpus():
                            self._count(waiting.popleft().result())
                    offset += 2 * math.prod(weight.shape)
                while waiting:
                    self._count(waiting.popleft().result())
            finally:
                for future in waiting:
                    future.cancel()
                # Close the file only after the last thread has written to it.
                for future in waiting:
                    if not future.cancelled():
                        future.exception()
        changed = [name for name in names if name in self._lora.changed]
        if changed and self._differing.isdisjoint(changed):
            raise ModelError(
                f"{changed[0]} is the same with the adapter as without it: rounding removed what was learned; "
                "raise spec.training.maxSteps or learningRate"
            )

    def _write_piece(
        self, out: int, weight: BaseWeight, factors: tuple[Any, Any] | None, start: int, stop: int, place: int
    ) -> int:
        import torch

        stored = weight.piece(start, stop)
        if factors is None and stored.dtype is torch.float16:
            # F16 is copied as it is; only the range is checked.
            half, largest = stored, stored
        else:
            merged = stored.float()
            if factors is not None:
                b, a = factors
                columns = a.shape[1]
                # In place where the stored weights are 32 bit and are not needed to compare with.
                merged = torch.addmm(merged.view(-1, columns), b[start // columns : stop // columns], a).view(-1)
            half, largest = merged.half(), merged
        low, high = (float(bound) for bound in torch.aminmax(largest))
        # Written as "not <=" to catch NaN, too.
        if not max(-low, high) <= F16_LARGEST:
            raise ModelError(
                f"{weight.name} has values outside the range of F16; this model cannot be exported to GGUF"
            )
        if factors is not None and weight.name not in self._differing and not torch.equal(half, stored.half()):
            self._differing.add(weight.name)
        _write_all(out, memoryview(half.numpy()).cast("B"), place)
        return 2 * (stop - start)

    def _count(self, size: int) -> None:
        before, self._done = 100 * self._done // self._size, self._done + size
        if (percent := 100 * self._done // self._size) != before:
            self._advance(percent)


def pieces(shape: tuple[int, ...], unit: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the flat weight: whole rows, and whole blocks of `unit` weights."""
    size, columns = math.prod(shape), shape[-1] if shape else 1
    step = math.lcm(columns, unit) if columns else 1
    step *= max(1, _PIECE // step)
    for start in range(0, size, step):
        yield start, min(start + step, size)


def _write_all(out: int, data: memoryview, place: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(out, data[done:], place + done)


def write_header(out: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """Write the header of a safetensors file of F16 tensors in this order; return its length.

    The format: 8 bytes of length, a JSON object of that length, the tensors' bytes
    (https://github.com/huggingface/safetensors#format).
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    data = json.dumps(header, separators=(",", ":")).encode()
    data += b" " * (-len(data) % 8)
    out.write(struct.pack("<Q", len(data)) + data)
    return 8 + len(data)


def _write_index(read: BaseWeights, target: Path) -> None:
    weight_map = {name: read.file_of(name) for name in read.shapes}
    if set(weight_map.values()) != {SINGLE}:
        total = 2 * sum(math.prod(shape) for shape in read.shapes.values())
        (target / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2))


def merged_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return config.json of the merged model: 16 bit, without the base's quantization."""
    kept = {k: v for k, v in config.items() if k not in ("quantization_config", "torch_dtype", "dtype")}
    return kept | {"torch_dtype": "float16"}


def _copy_other_files(base: Path, adapter_folder: Path, target: Path) -> None:
    for path in _small_files(base):
        shutil.copyfile(path, target / path.name)
    config = json.loads((base / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(merged_config(config), indent=2))
    template = adapter_folder / CHAT_TEMPLATE
    if template.is_file():
        # The converter prefers a template in tokenizer_config.json, which may differ from the one used in training.
        shutil.copyfile(template, target / CHAT_TEMPLATE)
        settings = json.loads((target / "tokenizer_config.json").read_text())
        settings.pop("chat_template", None)
        (target / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False, indent=2))


def _small_files(base: Path) -> Iterator[Path]:
    weights = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
    for path in sorted(base.iterdir()):
        if path.is_file() and not path.name.endswith(weights) and not path.name.endswith(".index.json"):
            yield path
