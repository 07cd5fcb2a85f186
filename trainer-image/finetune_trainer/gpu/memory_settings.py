"""The settings that decide how much GPU memory training takes; from fast to frugal, none changes the result."""

from dataclasses import dataclass
from typing import Literal

Checkpointing = Literal["None", "Standard", "Offload"]


@dataclass(frozen=True)
class MemorySettings:
    """Examples per forward pass, and which activations are kept. Neither changes the result."""

    micro_batch_size: int
    gradient_checkpointing: Checkpointing
