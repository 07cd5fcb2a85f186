"""Changes the tensors of a safetensors file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def rewrite(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Replace the file with one whose tensors (of torch, by name) `edit` has changed.

    It is another file: what was loaded is mapped from the first one, and writing over that ends the process.
    """
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    edit(tensors)
    made = path.with_name(f"{path.name}.new")
    save_file(tensors, made, metadata={"format": "pt"})
    made.replace(path)
