"""What prepare knows about a model that passed its checks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune_api.memory import Shape
from finetune_api.spec import MergeBase
from finetune_trainer.model.safetensors_header import Tensor
from finetune_trainer.sources.resolved import ResolvedModel


@dataclass(frozen=True)
class CheckedModel:
    """The pinned model, and what the data needs from it."""

    resolved: ResolvedModel
    tokenizer: Any
    tensors: Mapping[str, Tensor]
    generation_eos: list[int]
    # None: its config.json lacks the sizes that the estimate of GPU memory needs.
    shape: Shape | None = None
    # Its config.json.
    config: Mapping[str, Any] = field(default_factory=dict)
    # What the adapter will be merged into; None: the plan merges nothing.
    merge_base: MergeBase | None = None
