"""What the server of `warm` imports: everything that a stage would import on its way."""

import importlib
import pkgutil
import warnings

import finetune_trainer
from local_platform.smollm2 import model_dir

with warnings.catch_warnings(action="ignore"):
    # First: it patches the libraries that come after.
    for name in ("unsloth", "trl", "peft", "boto3", "llama_cpp", "gguf"):
        importlib.import_module(name)
    for module in pkgutil.walk_packages(finetune_trainer.__path__, "finetune_trainer."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("llama.modeling_llama", "auto.modeling_auto", "gpt2.tokenization_gpt2"):
        importlib.import_module(f"transformers.models.{name}")
    # Much more comes with the first tokenizer.
    importlib.import_module("transformers").AutoTokenizer.from_pretrained(model_dir())
