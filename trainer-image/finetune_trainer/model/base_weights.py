"""The weights that an adapter is merged into: as they are stored, or as training saw them.

Training loads a 16-bit repository in its own precision and, with NF4, rounds the linear layers to 4 bit; a repository
stored in 4 bit is already rounded. In both cases it computes with the rounded weights in its precision.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from finetune_api.base import Model
from finetune_trainer.errors import ModelError
from finetune_trainer.gpu.precision import Precision, dtype
from finetune_trainer.model import nf4
from finetune_trainer.model.safetensors_header import Tensor
from finetune_trainer.model.tensor_files import Weights
from finetune_trainer.run_folder.prepared import FOLDER

NAME = f"{FOLDER}/loading.json"
# Weights at a time, a multiple of every block.
_PIECE = 1 << 20


class Loading(Model):
    """`prepared/loading.json`: how training loaded the model."""

    precision: Precision
    # Modules whose weights were in 4 bit, such as model.layers.0.self_attn.q_proj.
    in_4bit: list[str]


def loading(model: Any, precision: Precision) -> Loading:
    """Return how `model`, with its adapter, was loaded."""
    # A layer with LoRA also has the weight of the layer that it wraps.
    in_4bit = dict.fromkeys(
        name.removeprefix("base_model.model.").removesuffix(".base_layer")
        for name, module in model.named_modules()
        if getattr(getattr(module, "weight", None), "quant_state", None) is not None
    )
    return Loading(precision=precision, in_4bit=list(in_4bit))


class BaseWeight:
    """One weight, read in pieces."""

    # Pieces start at multiples of this number of weights.
    unit = 1

    def __init__(self, name: str, shape: tuple[int, ...], weights: Weights, kind: Any = None) -> None:
        self.name, self.shape, self._weights, self._kind = name, shape, weights, kind

    def piece(self, start: int, stop: int) -> Any:
        """Return the weights `start` to `stop` of the flat tensor, in 16 or 32 bit, in the precision of training."""
        return self._in_precision(self._weights.piece(self._tensor, start, stop))

    @property
    def _tensor(self) -> Tensor:
        return self._weights.tensors[self.name]

    def _in_precision(self, piece: Any) -> Any:
        return piece if self._kind is None else piece.to(self._kind)


class _In4Bit(BaseWeight):
    def __init__(self, name: str, weights: Weights, kind: Any, state: nf4.State, codes: Any = None) -> None:
        super().__init__(name, state.shape, weights, kind)
        self.unit = state.block
        self._decoder = nf4.Decoder(state)
        # None: they are in the file.
        self._codes = codes

    def piece(self, start: int, stop: int) -> Any:
        first, last = start // 2, (stop + 1) // 2
        codes = (
            self._weights.bytes(self._tensor, first, last - first) if self._codes is None else self._codes[first:last]
        )
        return self._in_precision(self._decoder.decode(codes, start)[: stop - start])


class BaseWeights:
    """All weights of the files, without tensors that describe other tensors."""

    def __init__(self, files: Sequence[Path], loaded: Loading | None) -> None:
        """Open the files; with `loaded` the weights are what training saw.

        Raises:
            ModelError: a file is damaged, or these are not the weights that training used.
        """
        self._weights = Weights(files)
        tensors = self._weights.tensors
        self._kind = dtype(loaded.precision) if loaded else None
        self.shapes = {name: self._shape(name) for name in tensors if not nf4.describes(name, tensors)}
        self._rounded = {f"{module}.weight" for module in loaded.in_4bit} if loaded else set()
        if unknown := sorted(self._rounded - self.shapes.keys()):
            raise ModelError(
                f"{unknown[0]} was loaded in 4 bit in training and is missing in the model's files; set "
                "spec.export.mergeBase to Original"
            )

    def __enter__(self) -> "BaseWeights":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._weights.__exit__(kind, error, trace)

    def file_of(self, name: str) -> str:
        """Return the file that a weight is in."""
        return self._weights.tensors[name].file.path

    def names(self, file: str) -> list[str]:
        """Return the weights of a file in the order of their bytes."""
        return [t.name for t in self._weights.of_file(file) if t.name in self.shapes]

    def open(self, name: str, threads: ThreadPoolExecutor) -> BaseWeight:
        """Return a weight to read; `threads` quantize it if training did so on load."""
        tensors, shape = self._weights.tensors, self.shapes[name]
        if nf4.state_name(name, tensors) is not None:
            return _In4Bit(name, self._weights, self._kind, self._state(name))
        if name not in self._rounded:
            return BaseWeight(name, shape, self._weights, self._kind)
        size = math.prod(shape)
        whole = BaseWeight(name, shape, self._weights, self._kind)
        parts = (partial(whole.piece, start, min(start + _PIECE, size)) for start in range(0, size, _PIECE))
        codes, state = nf4.quantize(parts, shape, threads.map)
        return _In4Bit(name, self._weights, self._kind, state, codes)

    def _shape(self, name: str) -> tuple[int, ...]:
        tensors = self._weights.tensors
        if nf4.state_name(name, tensors) is None:
            return tensors[name].shape
        with _undamaged(name):
            return nf4.read_shape(name, tensors, self._weights.whole)

    def _state(self, name: str) -> nf4.State:
        with _undamaged(name):
            return nf4.read_state(name, self._weights.tensors, self._weights.whole)

    def stored_in_4bit(self) -> dict[str, nf4.Kind]:
        """Return the weights that are in 4 bit in the files."""
        tensors = self._weights.tensors
        found = {name: nf4.state_name(name, tensors) for name in self.shapes}
        return {name: "nf4" if state.endswith("nf4") else "fp4" for name, state in found.items() if state is not None}


@contextmanager
def _undamaged(name: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"{name} is stored in 4 bit and what describes it is missing or damaged; upload the model again"
        ) from error
