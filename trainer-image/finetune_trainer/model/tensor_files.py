"""The tensors of a model's safetensors files in a local folder, read in pieces."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from finetune_trainer.errors import ModelError
from finetune_trainer.model.safetensors_header import Tensor, read_tensors
from finetune_trainer.sources.folder_model import FolderModel
from finetune_trainer.sources.model_files import INDEX, SINGLE
from finetune_trainer.sources.resolved import ModelFile


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that make up the model.

    Raises:
        ModelError: there are none.
    """
    index = folder / INDEX
    if index.is_file():
        return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    raise ModelError("the model has no safetensors weights; export needs them")


class Weights:
    """Open files, which several threads may read. Nothing is memory-mapped, so only the pieces take memory."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Read the headers of `files`, which are in one folder.

        Raises:
            ModelError: one is damaged or truncated.
        """
        listed = [ModelFile(path=path.name, size_bytes=path.stat().st_size, identity="") for path in files]
        model = FolderModel(files[0].parent, lambda *_: None)
        self.tensors = read_tensors(model, listed)
        self._open = {path.name: os.open(path, os.O_RDONLY) for path in files}

    def __enter__(self) -> "Weights":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def of_file(self, name: str) -> list[Tensor]:
        """Return the tensors of one file in the order of their bytes."""
        return sorted((t for t in self.tensors.values() if t.file.path == name), key=lambda t: t.start)

    def bytes(self, tensor: Tensor, start: int, length: int) -> Any:
        """Return `length` bytes of the tensor from byte `start` (uint8 array).

        Raises:
            ModelError: the file was truncated meanwhile.
        """
        import numpy as np

        found = np.empty(length, np.uint8)
        view = memoryview(found)
        done = 0
        while done < length:
            count = os.preadv(self._open[tensor.file.path], [view[done:]], tensor.start + start + done)
            if not count:
                raise ModelError(f"{tensor.file.path} became shorter while it was read; upload it again")
            done += count
        return found

    def piece(self, tensor: Tensor, start: int, stop: int) -> Any:
        """Return the weights `start` to `stop` of the flat tensor in their stored type.

        Raises:
            ModelError: it is not a floating-point type of 16 or 32 bit.
        """
        import torch

        kind = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}.get(tensor.dtype)
        if kind is None:
            raise ModelError(
                f"{tensor.file.path}: {tensor.name} is stored as {tensor.dtype}; only 16 or 32-bit weights, or "
                "bitsandbytes' 4 bit, can be merged"
            )
        raw = self.bytes(tensor, start * kind.itemsize, (stop - start) * kind.itemsize)
        return torch.from_numpy(raw).view(kind)

    def whole(self, name: str) -> Any:
        """Return a small tensor of any type."""
        import torch

        kinds = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "U8": torch.uint8}
        tensor = self.tensors[name]
        return torch.from_numpy(self.bytes(tensor, 0, tensor.length)).view(kinds[tensor.dtype]).reshape(tensor.shape)
