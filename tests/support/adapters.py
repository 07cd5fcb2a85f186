"""LoRA adapters of the tiny model, as PEFT saves them."""

import json
from pathlib import Path
from typing import Any

# Inputs and outputs of the tiny model's linear layers.
SHAPES = {
    "self_attn.q_proj": (16, 16),
    "self_attn.k_proj": (16, 8),
    "self_attn.v_proj": (16, 8),
    "self_attn.o_proj": (16, 16),
    "mlp.gate_proj": (16, 32),
    "mlp.up_proj": (16, 32),
    "mlp.down_proj": (32, 16),
}
ALL = tuple(sorted(name.rpartition(".")[2] for name in SHAPES))


def write(
    folder: Path,
    *,
    modules: tuple[str, ...] = ALL,
    rank: int = 16,
    hidden: int = 16,
    layer: int = 0,
    **config: Any,
) -> Path:
    """Write an adapter of that form; `config` adds to its adapter_config.json."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "peft_type": "LORA",
        "base_model_name_or_path": "tiny",
        "r": rank,
        "lora_alpha": 16,
        "use_rslora": False,
        "target_modules": sorted(modules),
        "bias": "none",
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    (folder / "adapter_config.json").write_text(json.dumps(content | config))
    random = np.random.default_rng(0)
    tensors = {}
    for module, (inputs, outputs) in SHAPES.items():
        if module.rpartition(".")[2] not in modules:
            continue
        name = f"base_model.model.model.layers.{layer}.{module}"
        a, b = (rank, inputs * hidden // 16), (outputs * hidden // 16, rank)
        tensors[f"{name}.lora_A.weight"] = random.standard_normal(a).astype(np.float32)
        tensors[f"{name}.lora_B.weight"] = 0.01 * random.standard_normal(b).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder
