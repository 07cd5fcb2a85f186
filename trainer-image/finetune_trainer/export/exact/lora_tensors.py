"""Proves that the matrices of a LoRA GGUF are the adapter's, in llama.cpp's order."""

import json
from pathlib import Path

from finetune_trainer.export.exact.layouts import file_names, layouts
from finetune_trainer.export.rejected_file import RejectedFile
from finetune_trainer.model.adapter import WEIGHTS
from finetune_trainer.model.lora_weights import module_of

_PART = {"lora_A": "lora_a", "lora_B": "lora_b"}


def check(path: Path, adapter_folder: Path, model: Path) -> list[str]:
    """Compare a LoRA GGUF with the adapter's file and return the matrices whose place in the file is not proven.

    `model`: the folder of the model's configuration.

    Raises:
        RejectedFile: a matrix holds other values.
    """
    import gguf
    import numpy as np
    from safetensors.torch import load_file

    reader = gguf.GGUFReader(path)
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    field = reader.get_field("general.architecture")
    config = json.loads((model / "config.json").read_text())
    text = config.get("text_config") or config
    matrices = {module_of(key): matrix for key, matrix in load_file(adapter_folder / WEIGHTS).items()}
    names = file_names(
        "" if field is None else str(field.contents()),
        int(text.get("num_hidden_layers", 0)),
        {weight for weight, _ in matrices},
    )
    unproven = []
    for (weight, part), matrix in matrices.items():
        written = found.get(f"{names.get(weight)}.{_PART[part]}")
        wanted = matrix.float().numpy()
        if written is None or written.shape != wanted.shape:
            unproven.append(f"{weight} {part}")
        elif not any(np.array_equal(written, x.apply(wanted)) for x in layouts(len(wanted), config)):
            if not np.array_equal(np.sort(written, axis=None), np.sort(wanted, axis=None)):
                raise RejectedFile(f"the LoRA GGUF's {part} of {weight} is not the adapter's")
            unproven.append(f"{weight} {part}")
    return unproven
