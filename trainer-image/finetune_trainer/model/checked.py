"""What prepare knows of a model that passed its checks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune_api.memory import Shape
from finetune_api.spec import MergeBase
from finetune_trainer.model.safetensors_header import Tensor
from finetune_trainer.sources.resolved import ResolvedModel


@dataclass(frozen=True)
class CheckedModel:
    """The model, pinned, and what the data needs of it."""

    resolved: ResolvedModel
    tokenizer: Any
    tensors: Mapping[str, Tensor]
    generation_eos: list[int]
    # None: its config.json does not tell the sizes that GPU memory follows from.
    shape: Shape | None = None
    # Its config.json.
    config: Mapping[str, Any] = field(default_factory=dict)
    # What the adapter will be merged into; None: the plan merges nothing.
    merge_base: MergeBase | None = None
