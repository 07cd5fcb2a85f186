"""Models that cannot be trained or converted, and the one sentence that each of them gets."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from local_cluster.layout import cache
from tests.support.trainer_job import TrainerJob

Change = Callable[[Path, TrainerJob], None]
_FOUR_BIT = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}


class Case(NamedTuple):
    name: str
    change: Change
    code: int
    sentence: str


def _config(**members: Any) -> Change:
    def change(model: Path, job: TrainerJob) -> None:
        path = model / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | members))

    return change


def _remove(name: str) -> Change:
    return lambda model, job: (model / name).unlink()


def _write(name: str, data: bytes, *removed: str) -> Change:
    def change(model: Path, job: TrainerJob) -> None:
        for other in removed:
            (model / other).unlink()
        (model / name).write_bytes(data)

    return change


def _four_bit(section: str, member: str, value: Any) -> Change:
    def change(model: Path, job: TrainerJob) -> None:
        _config(**_FOUR_BIT)(model, job)
        job.plan[section][member] = value

    return change


def _plan(section: str, member: str, value: Any) -> Change:
    def change(model: Path, job: TrainerJob) -> None:
        job.plan[section][member] = value

    return change


def _targets(*names: str) -> Change:
    def change(model: Path, job: TrainerJob) -> None:
        job.plan["training"]["lora"]["targetModules"] = list(names)

    return change


def _shard_missing(model: Path, job: TrainerJob) -> None:
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")


def _cut_off(model: Path, job: TrainerJob) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])


def _larger_tokenizer(model: Path, job: TrainerJob) -> None:
    path = model / "tokenizer.json"
    content = json.loads(path.read_text())
    extra = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"].append({"id": 49152, "content": "<|new|>", **extra})
    path.write_text(json.dumps(content))


CASES = [
    Case(
        "no folder",
        lambda model, job: shutil.rmtree(model),
        66,
        "the model folder {model} cannot be read: No such file or directory; "
        "check the name of the PersistentVolumeClaim and the path in it",
    ),
    Case(
        "no config",
        _remove("config.json"),
        66,
        "tiny has no config.json; check the path, and that the upload was complete",
    ),
    Case("broken config", _write("config.json", b"{"), 66, "tiny: config.json is not JSON; upload it again"),
    Case(
        "config that is a list",
        _write("config.json", b"[]"),
        66,
        "tiny: config.json is not a JSON object; upload it again",
    ),
    Case(
        "pickles only",
        _write("pytorch_model.bin", b"", "model.safetensors"),
        66,
        "{model} has its weights as pickle files (.bin, .pt) only, which can run code; "
        "use a repository with .safetensors files",
    ),
    Case(
        "GGUF only",
        _write("model-Q4_K_M.gguf", b"GGUF", "model.safetensors"),
        66,
        "{model} has GGUF files only, which cannot be trained; use the repository they were made from",
    ),
    Case(
        "no weights",
        _remove("model.safetensors"),
        66,
        "{model} has no model.safetensors and no model.safetensors.index.json; "
        "check the path, and that the upload was complete",
    ),
    Case(
        "missing shard",
        _shard_missing,
        66,
        "tiny lacks 1 of 2 weight files, first model-00002-of-00002.safetensors; upload them",
    ),
    Case(
        "weights cut off",
        _cut_off,
        66,
        "model.safetensors is damaged or truncated: its safetensors header does not fit its size; upload it again",
    ),
    Case(
        "weights that are none",
        _write("model.safetensors", b"<html>404</html>"),
        66,
        "model.safetensors is damaged or truncated: its safetensors header does not fit its size; upload it again",
    ),
    Case(
        "unknown architecture",
        _config(model_type="llama9"),
        66,
        'tiny: model_type "llama9" is not known to transformers 5.17.0 as a model that writes text; '
        "choose another model, or a trainer image with newer libraries",
    ),
    Case(
        "code of its own",
        _config(model_type="mine", auto_map={"AutoModelForCausalLM": "modeling.Mine"}),
        66,
        "tiny needs its own Python code, which is not executed; use a model that the libraries support",
    ),
    Case(
        "model that fills blanks",
        _config(model_type="bert", architectures=["BertForMaskedLM"]),
        66,
        "tiny is a BertForMaskedLM, which does not write text; choose a BertLMHeadModel",
    ),
    Case(
        "GPTQ weights",
        _config(quantization_config={"quant_method": "gptq", "bits": 4}),
        66,
        "tiny has its weights quantized by gptq, which cannot be trained; "
        "use the 16-bit repository or one in bitsandbytes 4-bit",
    ),
    Case(
        "4-bit base as 16-bit",
        _four_bit("model", "quantization", "None"),
        64,
        "model.quantization is None, but the weights are stored in 4 bit; set it to NF4 or use a 16-bit repository",
    ),
    Case(
        "longer than the model reads",
        _plan("model", "maxSequenceLength", 1024),
        64,
        "model.maxSequenceLength is 1024, and the model reads at most 512 tokens",
    ),
    Case(
        "target module of another model",
        _targets("q_proj", "c_attn"),
        64,
        "training.lora.targetModules names c_attn, which the model does not have; "
        "it has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
    ),
    Case(
        "no tokenizer",
        _remove("tokenizer.json"),
        66,
        "tiny has no tokenizer (tokenizer.json or tokenizer.model); upload it",
    ),
    Case(
        "broken tokenizer",
        _write("tokenizer.json", b'{"version": "1.0"'),
        66,
        "tiny: the tokenizer cannot be loaded (JSONDecodeError); upload its files again",
    ),
    Case(
        "tokenizer of a larger model",
        _larger_tokenizer,
        66,
        "tiny: the tokenizer has 49153 tokens and the weights only 49152; they belong to different models",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_bad_model_ends_prepare_with_a_sentence(
    case: Case, job: TrainerJob, good_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(good_model, tmp_path / "tiny")
    job.plan["model"]["path"] = str(model)
    case.change(model, job)
    code = job.run("prepare")
    result = job.result()
    assert result["message"] == case.sentence.replace("{model}", str(model))
    assert code == case.code
    assert "Traceback" not in "".join(capfd.readouterr())
    assert result["message"] in (job.output / result["log"]).read_text()


@pytest.mark.skipif(not (cache() / "llama.cpp" / "convert_hf_to_gguf.py").is_file(), reason="llama.cpp is not built")
def test_tokenizer_that_llama_cpp_does_not_know_ends_prepare(
    job: TrainerJob, good_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP_DIR", os.fspath(cache() / "llama.cpp"))
    model = shutil.copytree(good_model, tmp_path / "tiny")
    content = json.loads((model / "tokenizer.json").read_text())
    content["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "[aeiou]"},
        "behavior": "Isolated",
        "invert": False,
    }
    (model / "tokenizer.json").write_text(json.dumps(content))
    job.plan["model"]["path"] = str(model)
    job.plan["export"]["gguf"] = ["Q8_0"]
    assert job.run("prepare") == 66
    assert job.result()["message"] == (
        "tiny cannot be converted to GGUF: llama.cpp's converter does not know its tokenizer or architecture "
        "(its output is in the log); remove export.gguf or choose another model"
    )
