"""A model of random weights with a real tokenizer: 1.6 MB, made in milliseconds, enough where no answer is needed."""

import json
import shutil
from pathlib import Path
from typing import Any

from local_platform.smollm2 import model_dir

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
_HIDDEN = 16
_INTERMEDIATE = 32
_VOCABULARY = 49152
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": _HIDDEN,
    "intermediate_size": _INTERMEDIATE,
    "max_position_embeddings": 512,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": True,
    "dtype": "float16",
    "vocab_size": _VOCABULARY,
}


def build(folder: Path, config: dict[str, Any] | None = None, untrained: tuple[int, ...] = ()) -> Path:
    """Make a model; `config` adds to CONFIG, and the rows of the `untrained` tokens are zero."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    for name in _TOKENIZER_FILES:
        shutil.copy(model_dir() / name, folder / name)
    (folder / "config.json").write_text(json.dumps(CONFIG | (config or {})))
    random = np.random.default_rng(0)
    layer = "model.layers.0"
    shapes = {
        "model.embed_tokens.weight": (_VOCABULARY, _HIDDEN),
        "model.norm.weight": (_HIDDEN,),
        f"{layer}.input_layernorm.weight": (_HIDDEN,),
        f"{layer}.post_attention_layernorm.weight": (_HIDDEN,),
        f"{layer}.self_attn.q_proj.weight": (_HIDDEN, _HIDDEN),
        f"{layer}.self_attn.k_proj.weight": (_HIDDEN // 2, _HIDDEN),
        f"{layer}.self_attn.v_proj.weight": (_HIDDEN // 2, _HIDDEN),
        f"{layer}.self_attn.o_proj.weight": (_HIDDEN, _HIDDEN),
        f"{layer}.mlp.gate_proj.weight": (_INTERMEDIATE, _HIDDEN),
        f"{layer}.mlp.up_proj.weight": (_INTERMEDIATE, _HIDDEN),
        f"{layer}.mlp.down_proj.weight": (_HIDDEN, _INTERMEDIATE),
    }
    tensors = {name: (0.1 * random.standard_normal(shape)).astype(np.float16) for name, shape in shapes.items()}
    for token in untrained:
        tensors["model.embed_tokens.weight"][token] = 0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
