"""How much GPU memory one attempt at training may take: the rungs of the ladder from fast to frugal."""

from dataclasses import dataclass
from typing import Literal

Checkpointing = Literal["None", "Standard", "Offload"]


@dataclass(frozen=True)
class MemorySettings:
    """Examples per forward pass, and which activations are kept. Neither changes the result."""

    micro_batch_size: int
    gradient_checkpointing: Checkpointing
