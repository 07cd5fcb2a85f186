"""What is read from a good model, stored in 16 and in 4 bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_api.plan import Plan
from finetune_trainer.errors import ModelError, SettingsError
from finetune_trainer.model.checked import CheckedModel
from finetune_trainer.prepare.model_preflight import check
from finetune_trainer.sources.folder_model import FolderModel
from tests.support import tiny_model
from tests.support.trainer_job import TrainerJob

_QUANTIZED = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
# 49152 * 16 embeddings, 2 * 16 * 16 + 2 * 8 * 16 attention, 3 * 32 * 16 MLP, 3 * 16 norms
PARAMETERS = 786_432 + 768 + 1_536 + 48


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the stage sets it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def _check(job: TrainerJob, folder: Path) -> CheckedModel:
    model = FolderModel(folder, lambda done, total: None)
    return check(Plan.model_validate(job.plan), model, model.listing(), folder)


def _store_in_4bit(folder: Path) -> None:
    """Replace the linear layers by what bitsandbytes stores: packed halves beside tensors that describe them."""
    from safetensors.numpy import load_file, save_file

    tensors: dict[str, Any] = {}
    for name, value in load_file(folder / "model.safetensors").items():
        if "_proj." not in name:
            tensors[name] = value
            continue
        tensors[name] = np.zeros((value.size // 2, 1), np.uint8)
        for suffix, size in {"absmax": 8, "quant_map": 16, "nested_absmax": 1, "nested_quant_map": 256}.items():
            tensors[f"{name}.{suffix}"] = np.zeros(size, np.float32)
        tensors[f"{name}.quant_state.bitsandbytes__nf4"] = np.zeros(90, np.uint8)
    save_file(tensors, folder / "model.safetensors")


def test_16_bit_model(job: TrainerJob, tiny: Path) -> None:
    found = _check(job, tiny).resolved
    assert (found.reference, found.architecture, found.parameters) == ("tiny", "LlamaForCausalLM", PARAMETERS)
    assert not found.stored_in_4bit


def test_4_bit_model_counts_its_weights_unpacked(job: TrainerJob, tmp_path: Path) -> None:
    folder = tiny_model.build(tmp_path / "tiny-bnb-4bit", config=_QUANTIZED)
    _store_in_4bit(folder)
    found = _check(job, folder).resolved
    assert (found.stored_in_4bit, found.parameters) == (True, PARAMETERS)


def test_a_second_copy_of_the_weights_is_left_out(job: TrainerJob, tmp_path: Path) -> None:
    folder = tiny_model.build(tmp_path / "tiny")
    (folder / "consolidated.safetensors").write_bytes(b"not even read")
    assert "consolidated.safetensors" not in [f.path for f in _check(job, folder).resolved.files]


@pytest.mark.parametrize(("generation", "expected"), [({"eos_token_id": [2, 0]}, [2, 0]), ({}, [2]), (None, [2])])
def test_generation_config_adds_its_stops(
    job: TrainerJob, tmp_path: Path, generation: dict[str, Any] | None, expected: list[int]
) -> None:
    folder = tiny_model.build(tmp_path / "tiny")
    path = folder / "generation_config.json"
    path.write_text(json.dumps(generation)) if generation is not None else path.unlink()
    assert _check(job, folder).generation_eos == expected


CONVERTED = [{"gguf": ["F16"]}, {"gguf": [], "merged": True}, {"gguf": [], "loraGGUF": True}]


@pytest.mark.parametrize("export", CONVERTED)
def test_whatever_export_proves_as_a_gguf_must_be_convertible(
    job: TrainerJob, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export: dict[str, Any]
) -> None:
    (tmp_path / "convert_hf_to_gguf.py").write_text("import sys; sys.exit(1)")
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    job.plan["export"] = export
    with pytest.raises(ModelError, match="cannot be converted to GGUF"):
        _check(job, tiny)


@pytest.mark.parametrize("export", CONVERTED)
def test_a_missing_converter_is_found_before_anything_is_trained(
    job: TrainerJob, tiny: Path, monkeypatch: pytest.MonkeyPatch, export: dict[str, Any]
) -> None:
    monkeypatch.delenv("LLAMA_CPP_DIR", raising=False)
    job.plan["export"] = export
    with pytest.raises(SettingsError, match="LLAMA_CPP_DIR is not set; set it to what"):
        _check(job, tiny)


def test_a_folder_without_the_converter_is_named(
    job: TrainerJob, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path))
    job.plan["export"] = {"gguf": ["F16"]}
    with pytest.raises(SettingsError, match=f"LLAMA_CPP_DIR is {tmp_path}, which has no convert_hf_to_gguf.py;"):
        _check(job, tiny)


def test_a_job_that_converts_nothing_needs_no_converter(
    job: TrainerJob, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLAMA_CPP_DIR", raising=False)
    job.plan["export"] = {"gguf": []}
    assert _check(job, tiny).resolved.architecture
