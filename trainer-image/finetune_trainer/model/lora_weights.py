"""What an adapter adds to each weight of its base."""

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any

from finetune_trainer.errors import ModelError
from finetune_trainer.model.adapter import CONFIG, WEIGHTS
from finetune_trainer.model.safetensors_header import Tensor
from finetune_trainer.model.tensor_files import Weights

_PREFIX = "base_model.model."


def scale(config: dict[str, Any]) -> float:
    """Return the factor of B A: alpha / r, or alpha / sqrt(r) if rank-stabilized (https://arxiv.org/abs/2312.03732)."""
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def module_of(key: str) -> tuple[str, str]:
    """Return the base weight and the part ("lora_A" or "lora_B") of a tensor of the adapter's file.

    Raises:
        ModelError: the tensor cannot be merged.
    """
    for part in ("lora_A", "lora_B"):
        if key.startswith(_PREFIX) and key.endswith(f".{part}.weight"):
            return f"{key.removeprefix(_PREFIX).removesuffix(f'.{part}.weight')}.weight", part
    raise ModelError(f"the adapter's tensor {key} is not a LoRA matrix and cannot be merged")


class LoRAWeights:
    """The adapter's matrices by the base weight that they change. They are read when they are used."""

    def __init__(self, folder: Path) -> None:
        """Open the adapter in `folder`.

        Raises:
            ModelError: it cannot be merged, or every B is zero.
        """
        self._scale = scale(json.loads((folder / CONFIG).read_text()))
        self._weights = Weights([folder / WEIGHTS])
        self._matrices: dict[str, dict[str, Tensor]] = {}
        for key, tensor in self._weights.tensors.items():
            weight, part = module_of(key)
            self._matrices.setdefault(weight, {})[part] = tensor
        # A target without gradients keeps a B of zeros, and its weight must not change.
        self.changed = {w for w, pair in self._matrices.items() if bool(self._weights.whole(pair["lora_B"].name).any())}
        if not self.changed:
            raise ModelError("the adapter changes nothing: all its B matrices are zero")

    def __enter__(self) -> "LoRAWeights":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._weights.__exit__(kind, error, trace)

    def check_fits(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Check that the base has every weight that is changed, in its shape.

        Raises:
            ModelError: the adapter belongs to another model.
        """
        for weight, pair in sorted(self._matrices.items()):
            if weight not in shapes:
                raise ModelError(f"the adapter changes {weight}, which is not in the model's weights")
            if (pair["lora_B"].shape[0], pair["lora_A"].shape[1]) != shapes[weight]:
                raise ModelError(f"the adapter's shape for {weight} is not the model's: it belongs to another model")

    def factors(self, weight: str) -> tuple[Any, Any] | None:
        """Return s B and A in 32 bit, or None for a weight that the adapter does not change."""
        if weight not in self.changed:
            return None
        pair = self._matrices[weight]
        b, a = (self._weights.whole(pair[part].name).float() for part in ("lora_B", "lora_A"))
        return b * self._scale, a
