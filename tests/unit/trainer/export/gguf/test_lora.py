"""What of an adapter llama.cpp can apply, and by which factor."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.errors import ModelError
from finetune_trainer.export.gguf import lora as lora_gguf
from finetune_trainer.runtime.llama_cpp_dir import CONVERTER
from tests.support import adapters, tiny_gguf

# A converter that writes what the test wants, and beside the result what it was given.
PROGRAM = """import json, pathlib, shutil, sys
adapter, base, target = (pathlib.Path(sys.argv[i]) for i in (1, 3, 5))
given = {"adapter": json.loads((adapter / "adapter_config.json").read_text()),
         "base": json.loads((base / "config.json").read_text()),
         "files": sorted(p.name for p in base.iterdir()),
         "weights": (adapter / "adapter_model.safetensors").stat().st_size}
pathlib.Path("given.json").write_text(json.dumps(given))
shutil.copy("made.gguf", target)
"""


def made(path: Path, alpha: float, modules: int = 1, **replaced: Any) -> None:
    """Write what the converter will hand over."""
    settings = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"} | replaced
    norm = tiny_gguf.tensors(32)["output_norm.weight"]
    names = [f"blk.{i}.attn_q.weight.{part}" for i in range(modules) for part in ("lora_a", "lora_b")]
    tiny_gguf.write(path, settings | {"adapter.lora.alpha": alpha}, dict.fromkeys(names, norm))


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "convert_lora_to_gguf.py").write_text(PROGRAM)
    (tmp_path / CONVERTER).touch()
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path))
    return tmp_path


def adapter(folder: Path, **config: Any) -> Path:
    return adapters.write(folder / "adapter", modules=("q_proj",), **config)


def given(scratch: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((scratch / "given.json").read_text())
    return found


@pytest.mark.parametrize(("rank_stabilized", "alpha"), [(False, 16.0), (True, 64.0)])
def test_rank_stabilized_alpha_is_written_for_alpha_over_r(
    rank_stabilized: bool, alpha: float, tiny: Path, scratch: Path
) -> None:
    made(scratch / "made.gguf", alpha)
    folder = adapter(scratch, use_rslora=rank_stabilized)
    lora_gguf.convert(tiny, folder, scratch / "lora.gguf", scratch)
    assert given(scratch)["adapter"]["lora_alpha"] == alpha
    assert not given(scratch)["adapter"]["use_rslora"]
    assert json.loads((folder / "adapter_config.json").read_text())["lora_alpha"] == 16
    assert (scratch / "lora.gguf").is_file()


def test_the_base_is_its_tokenizer_and_its_config_without_how_it_is_stored(tmp_path: Path, scratch: Path) -> None:
    from tests.support import tiny_model

    base = tiny_model.build(tmp_path / "base", {"quantization_config": {"load_in_4bit": True}})
    made(scratch / "made.gguf", 16.0)
    lora_gguf.convert(base, adapter(scratch), scratch / "lora.gguf", scratch)
    assert "quantization_config" not in given(scratch)["base"]
    assert "quantization_config" in json.loads((base / "config.json").read_text())
    assert "tokenizer.json" in given(scratch)["files"]
    assert "model.safetensors" not in given(scratch)["files"]


def test_nothing_is_left_in_scratch(tiny: Path, scratch: Path) -> None:
    made(scratch / "made.gguf", 16.0)
    lora_gguf.convert(tiny, adapter(scratch), scratch / "lora.gguf", scratch)
    assert {p.name for p in scratch.iterdir() if p.is_dir()} == {"adapter"}


@pytest.mark.parametrize(
    ("alpha", "modules", "replaced"),
    [(8.0, 1, {}), (16.0, 0, {}), (16.0, 1, {"general.type": "model"}), (16.0, 1, {"adapter.type": "other"})],
)
def test_a_file_without_what_the_adapter_has_is_refused(
    alpha: float, modules: int, replaced: dict[str, Any], tiny: Path, scratch: Path
) -> None:
    made(scratch / "made.gguf", alpha, modules, **replaced)
    with pytest.raises(ModelError, match="the LoRA GGUF does not have the adapter's content"):
        lora_gguf.convert(tiny, adapter(scratch), scratch / "lora.gguf", scratch)
    assert not (scratch / "lora.gguf").exists()


@pytest.mark.parametrize("module", ["model.embed_tokens", "lm_head"])
def test_an_adapter_of_the_vocabulary_is_refused(module: str) -> None:
    said = lora_gguf.refusal({"modules_to_save": None}, {"model.layers.0.self_attn.q_proj.weight", f"{module}.weight"})
    assert said is not None
    assert said.startswith(f"the adapter changes {module}, ")
    assert "spec.export.loraGGUF" in said


def test_modules_that_were_trained_as_a_whole_are_refused() -> None:
    assert "changes lm_head" in str(lora_gguf.refusal({"modules_to_save": ["lm_head"]}, set()))
    said = str(lora_gguf.refusal({"modules_to_save": ["norm"]}, set()))
    assert "replaces norm as a whole" in said
    assert "spec.export.loraGGUF" in said


def test_an_adapter_of_linear_layers_is_not_refused() -> None:
    assert lora_gguf.refusal({"modules_to_save": None}, {"model.layers.0.mlp.up_proj.weight"}) is None


@pytest.mark.parametrize("key", ["model.embed_tokens.lora_embedding_A", "lm_head.lora_B.weight"])
def test_the_refusal_comes_from_the_adapters_own_tensors(key: str, tiny: Path, scratch: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    folder = adapter(scratch)
    save_file({f"base_model.model.{key}": np.ones((2, 2), np.float32)}, folder / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"spec\.export\.loraGGUF"):
        lora_gguf.convert(tiny, folder, scratch / "lora.gguf", scratch)
