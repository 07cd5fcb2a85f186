"""The orders in which llama.cpp's converters write the rows of a weight, and the names that they give to weights."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layout:
    """One order; pieces of a weight are made of whole units."""

    # Rows that are reordered among each other.
    unit: int = 1
    # The two halves of each unit are interleaved: llama.cpp's rotary embedding of some families turns neighbours.
    interleaved: bool = False
    # Gemma's norms are stored without the 1 that llama.cpp wants.
    shift: float = 0.0

    def apply(self, rows: Any) -> Any:
        """Return rows of the model, [n, columns] with whole units, as they stand in the file."""
        import numpy as np

        if self.interleaved:
            columns = rows.shape[1]
            rows = rows.reshape(-1, 2, self.unit // 2, columns).swapaxes(1, 2).reshape(-1, columns)
        return rows if not self.shift else rows.astype(np.float32) + np.float32(self.shift)


def layouts(rows: int, config: dict[str, Any]) -> Iterator[Layout]:
    """Yield the orders that a weight of so many rows may be written in, the likely one first."""
    yield Layout()
    text = config.get("text_config") or config
    for heads in dict.fromkeys((text.get("num_attention_heads"), text.get("num_key_value_heads"))):
        if heads and rows % (2 * heads) == 0:
            yield Layout(unit=rows // heads, interleaved=True)
    yield Layout(shift=1.0)


def file_names(architecture: str, layers: int, weights: Collection[str]) -> dict[str, str]:
    """Return the names in the file by the model's, as far as the gguf package knows the architecture."""
    import gguf

    known = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in known:
        return {}
    table = gguf.get_tensor_name_map(known[architecture], layers)
    found = {}
    for weight in weights:
        # The text part of a model that also sees.
        plain = weight.replace("language_model.", "")
        name = table.get_name(plain, try_suffixes=(".weight", ".bias"))
        if name is not None:
            found[weight] = name
    return found
