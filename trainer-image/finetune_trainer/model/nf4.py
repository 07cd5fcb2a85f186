"""The 4-bit weights of bitsandbytes, as training computes with them.

A file stores two codes per byte, the first in the high half, and the largest magnitude (absmax) of every block of
weights; the absmax may itself be in 8 bit, around their mean ("nested", https://arxiv.org/abs/2305.14314 section 3).
All arithmetic is in 32 bit and in bitsandbytes' order, so that every weight equals bitsandbytes' to the last bit.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

# bitsandbytes' defaults for quantization on load.
BLOCK = 64
NESTED_BLOCK = 256
# Suffixes of the tensor that describes the codes of a weight.
STATES = (".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")
Kind = Literal["nf4", "fp4"]
_PARTS = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")


def state_name(weight: str, names: Mapping[str, Any]) -> str | None:
    """Return the name of the tensor that describes the 4-bit `weight`; None for a weight in 16 bit."""
    return next((weight + suffix for suffix in STATES if weight + suffix in names), None)


def describes(name: str, names: Mapping[str, Any]) -> bool:
    """Return whether the tensor describes a 4-bit weight instead of being a weight."""
    return any(name.endswith(suffix) and name.removesuffix(suffix) in names for suffix in (*STATES, *_PARTS))


@dataclass(frozen=True)
class State:
    """What is needed to turn codes into weights."""

    # float32 [blocks]
    absmax: Any
    # float32 [16]
    values: Any
    block: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)


def read_shape(weight: str, names: Mapping[str, Any], read: Callable[[str], Any]) -> tuple[int, ...]:
    """Return the shape of a stored weight, as `read_state` does without its other tensors."""
    return tuple(_described(weight, names, read)["shape"])


def _described(weight: str, names: Mapping[str, Any], read: Callable[[str], Any]) -> dict[str, Any]:
    name = state_name(weight, names)
    if name is None:
        raise KeyError(f"{weight}{STATES[0]}")
    found: dict[str, Any] = json.loads(bytes(read(name).numpy()))
    return found


def read_state(weight: str, names: Mapping[str, Any], read: Callable[[str], Any]) -> State:
    """Return the state of a stored weight; `read` returns a tensor by its name.

    Raises:
        KeyError: one of its tensors is missing.
        ValueError: its description is damaged.
    """
    described = _described(weight, names, read)
    absmax = read(f"{weight}.absmax")
    if "nested_blocksize" in described:
        absmax = unnested(
            absmax,
            read(f"{weight}.nested_absmax"),
            read(f"{weight}.nested_quant_map"),
            int(described["nested_blocksize"]),
            float(described["nested_offset"]),
        )
    return State(
        absmax.float(),
        read(f"{weight}.quant_map").float(),
        int(described["blocksize"]),
        tuple(described["shape"]),
    )


def unnested(codes: Any, absmax: Any, values: Any, block: int, offset: Any) -> Any:
    """Return the blocks' absmax (float32) of their 8-bit `codes`."""
    found = values.float()[codes.flatten().int()]
    found *= absmax.float().repeat_interleave(block)[: found.numel()]
    return found.add_(offset)


class Decoder:
    """Turns codes into weights, piece by piece."""

    def __init__(self, state: State) -> None:
        import numpy as np

        self._state = state
        values = state.values.numpy()
        # Looks up both weights of a byte at once, as eight bytes.
        pairs = np.stack([np.repeat(values, 16), np.tile(values, 16)], axis=1)
        self._pairs = np.ascontiguousarray(pairs, dtype=np.float32).view(np.float64).reshape(256)

    def decode(self, codes: Any, start: int) -> Any:
        """Return the weights (float32, flat) of packed codes (uint8 array); `start` is the index of the first one.

        `start` must be the beginning of a block.
        """
        import numpy as np
        import torch

        block = self._state.block
        found = torch.from_numpy(np.take(self._pairs, codes, mode="clip").view(np.float32))
        size = min(found.numel(), self._state.size - start)
        found = found[:size]
        absmax = self._state.absmax[start // block : -(-(start + size) // block)]
        whole = size // block
        found[: whole * block].view(whole, block).mul_(absmax[:whole, None])
        if size % block:
            found[whole * block :].mul_(absmax[whole])
        return found


def quantize(
    pieces: Iterable[Callable[[], Any]],
    shape: tuple[int, ...],
    run: Callable[..., Iterable[Any]] = map,
    kind: Kind = "nf4",
) -> tuple[Any, State]:
    """Quantize as bitsandbytes does on load, in blocks of 64 with nested absmax; return codes (uint8 array) and State.

    `pieces` return the weight's consecutive parts in the precision of training, each a multiple of a block but the
    last; `run` maps a function over them, in order.
    """
    import numpy as np
    import torch
    from bitsandbytes import functional

    def quantized(read: Callable[[], Any]) -> tuple[Any, Any]:
        codes, state = functional.quantize_4bit(read(), blocksize=BLOCK, quant_type=kind)
        return codes.reshape(-1).numpy(), state.absmax

    parts = list(run(quantized, pieces))
    absmax = torch.cat([absmax for _, absmax in parts])
    offset = absmax.mean()
    nested, state = functional.quantize_blockwise(absmax - offset, blocksize=NESTED_BLOCK)
    restored = unnested(nested, state.absmax, state.code, NESTED_BLOCK, offset)
    values = functional.get_4bit_type(kind, device="cpu")
    return np.concatenate([codes for codes, _ in parts]), State(restored, values, BLOCK, shape)
