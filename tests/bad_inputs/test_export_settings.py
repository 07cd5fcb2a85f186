"""What the adapter cannot be merged into, and the one sentence that each case gets before anything is trained."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.trainer_job import TrainerJob

_QUANTIZED = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
_K_PROJ = "model.layers.0.self_attn.k_proj.weight"
_FIX = "set export.originalModel to the 16-bit repository it was made from"
_OTHER = "export.originalModel is not the model that spec.model was made from"


def _edit_config(folder: Path, **members: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | members))


def _edit_weights(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _store_in_4bit(folder: Path) -> None:
    """Replace the linear layers by what bitsandbytes stores of them; no weight is looked at before training."""
    import numpy as np

    def pack(tensors: dict[str, Any]) -> None:
        for name, value in list(tensors.items()):
            if "_proj." in name:
                tensors[name] = np.zeros(((value.size + 1) // 2, 1), np.uint8)
                state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(value.shape)}
                tensors[f"{name}.quant_state.bitsandbytes__nf4"] = np.frombuffer(json.dumps(state).encode(), np.uint8)
                tensors[f"{name}.absmax"] = np.zeros(-(-value.size // 64), np.float32)
                tensors[f"{name}.quant_map"] = np.zeros(16, np.float32)

    _edit_weights(folder, pack)
    _edit_config(folder, quantization_config=_QUANTIZED)


class Places:
    """The job with its model, which is stored in 4 bit, and the 16-bit weights that the model was made from."""

    def __init__(self, job: TrainerJob, good_model: Path, root: Path) -> None:
        self.job = job
        self.original = shutil.copytree(good_model, root / "original")
        self.model = shutil.copytree(good_model, root / "tiny")
        _store_in_4bit(self.model)
        job.plan["model"]["path"] = str(self.model)
        self.export = {"gguf": ["Q8_0"], "original": {"path": str(self.original)}}
        job.plan["export"] = self.export


class Case(NamedTuple):
    name: str
    change: Callable[[Places], Any]
    code: int
    sentence: str


def _16_bit_itself(places: Places) -> None:
    places.job.plan["model"]["path"] = str(places.original)


def _without_original(places: Places) -> None:
    del places.export["original"]
    places.export["mergeBase"] = "Original"


def _adapter_alone(places: Places) -> None:
    del places.export["original"]
    places.export |= {"gguf": [], "loraGGUF": True}


CASES = [
    Case(
        "loraGGUF without 16-bit weights",
        _adapter_alone,
        64,
        "export.loraGGUF is for use and proof beside a 16-bit GGUF of the model, and the model has its weights in "
        f"4 bit only; {_FIX}, or leave loraGGUF out",
    ),
    Case(
        "originalModel of a 16-bit model",
        _16_bit_itself,
        64,
        "export.originalModel is set, and spec.model has 16-bit weights itself; leave it out",
    ),
    Case(
        "Original without originalModel",
        _without_original,
        64,
        f"export.mergeBase is Original, and the model has its weights in 4 bit only; {_FIX}, "
        "or set mergeBase to Trained",
    ),
    Case(
        "Trained with originalModel",
        lambda places: places.export.update(mergeBase="Trained"),
        64,
        "export.originalModel is what mergeBase Original merges into, and mergeBase is Trained; leave one out",
    ),
    Case(
        "originalModel in 4 bit",
        lambda places: _store_in_4bit(places.original),
        66,
        f"export.originalModel is quantized itself; {_FIX}",
    ),
    Case(
        "originalModel of another architecture",
        lambda places: _edit_config(places.original, model_type="mistral", architectures=["MistralForCausalLM"]),
        66,
        f"{_OTHER}: model_type is mistral, not llama; {_FIX}",
    ),
    Case(
        "originalModel of another vocabulary",
        lambda places: _edit_config(places.original, vocab_size=49153),
        66,
        f"{_OTHER}: vocab_size is 49153, not 49152; {_FIX}",
    ),
    Case(
        "originalModel without a layer",
        lambda places: _edit_weights(places.original, lambda tensors: tensors.pop(_K_PROJ)),
        66,
        f"{_OTHER}: it has no {_K_PROJ}; {_FIX}",
    ),
    Case(
        "originalModel of another size",
        lambda places: _edit_weights(places.original, lambda t: t.update({_K_PROJ: t[_K_PROJ][:4].copy()})),
        66,
        f"{_OTHER}: {_K_PROJ} has another size; {_FIX}",
    ),
    Case(
        "originalModel without config",
        lambda places: (places.original / "config.json").unlink(),
        66,
        "original has no config.json; check the path, and that the upload was complete",
    ),
]


@pytest.fixture
def places(job: TrainerJob, good_model: Path, tmp_path: Path) -> Places:
    return Places(job, good_model, tmp_path)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_bad_export_settings_end_prepare_with_a_sentence(
    case: Case, places: Places, capfd: pytest.CaptureFixture[str]
) -> None:
    case.change(places)
    code = places.job.run("prepare")
    assert (places.job.result()["message"], code) == (case.sentence, case.code)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_the_right_original_is_pinned(places: Places) -> None:
    assert places.job.run("prepare") == 0
    (path,) = places.job.output.glob("**/prepared.json")
    found = json.loads(path.read_text())
    assert found["original"]["reference"] == "original"
    assert found["original"]["revision"] != found["model"]["revision"]


def test_a_4bit_model_needs_no_original(places: Places) -> None:
    del places.export["original"]
    assert places.job.run("prepare") == 0
