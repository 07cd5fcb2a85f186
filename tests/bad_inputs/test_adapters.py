"""Earlier adapters that cannot be trained further: seen in prepare, before there is a GPU."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import adapters
from tests.support.trainer_job import TrainerJob


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return adapters.write(tmp_path / "earlier")


def _outcome(job: TrainerJob, folder: Path) -> tuple[int, str]:
    job.plan["model"]["adapter"] = {"path": str(folder)}
    code = job.run("prepare")
    return code, job.result()["message"]


def _config(folder: Path, **members: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | members))


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_file_that_is_missing(job: TrainerJob, folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert _outcome(job, folder) == (
        66,
        f"model.adapter: {folder.as_uri()} has no {name}; name the folder of an adapter as PEFT saves it",
    )


def test_folder_that_is_missing(job: TrainerJob, tmp_path: Path) -> None:
    assert _outcome(job, tmp_path / "none") == (
        66,
        f"model.adapter: {(tmp_path / 'none').as_uri()} has no adapter_config.json; "
        "name the folder of an adapter as PEFT saves it",
    )


def test_weights_as_a_pickle(job: TrainerJob, folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert _outcome(job, folder) == (
        66,
        f"model.adapter: {folder.as_uri()} has its weights as a pickle file (adapter_model.bin) only, which can run "
        "code; save the adapter again as safetensors",
    )


@pytest.mark.parametrize("text", ["{", "[]", '"a"'])
def test_configuration_that_is_none(job: TrainerJob, folder: Path, text: str) -> None:
    (folder / "adapter_config.json").write_text(text)
    assert _outcome(job, folder) == (
        66,
        f"model.adapter: {folder.as_uri()}/adapter_config.json is not a JSON object; upload it again",
    )


def test_weights_that_were_cut_off(job: TrainerJob, folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert _outcome(job, folder) == (
        66,
        "adapter_model.safetensors is damaged or truncated: its safetensors header does not fit its size; "
        "upload it again",
    )


def test_adapter_of_another_type(job: TrainerJob, folder: Path) -> None:
    _config(folder, peft_type="IA3")
    assert _outcome(job, folder) == (
        66,
        f"model.adapter: {folder.as_uri()} is an adapter of type IA3; only LoRA adapters can be continued",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("use_dora", True),
        ("bias", "all"),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 4}),
        ("alpha_pattern", {"q_proj": 4}),
        ("target_parameters", ["mlp.experts.gate_up_proj"]),
    ],
)
def test_adapter_with_more_than_plain_lora(job: TrainerJob, folder: Path, name: str, value: object) -> None:
    _config(folder, **{name: value})
    assert _outcome(job, folder) == (
        66,
        f"model.adapter: {folder.as_uri()} was made with {name}, which cannot be continued; use a plain LoRA adapter",
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: adapters.write(folder, hidden=32, base_model_name_or_path="org/larger"),
        lambda folder: adapters.write(folder, layer=7, base_model_name_or_path="org/larger"),
    ],
    ids=["other shapes", "more layers"],
)
def test_adapter_of_another_model(job: TrainerJob, folder: Path, make: Callable[[Path], Path]) -> None:
    make(folder)
    assert _outcome(job, folder) == (
        66,
        f"model.adapter: {folder.as_uri()} was trained on org/larger and does not fit tiny; "
        "set spec.model to the model that it was trained on",
    )


@pytest.mark.parametrize(
    ("members", "change"),
    [
        ({"rank": 8}, "rank to 8"),
        ({"lora_alpha": 32}, "alpha to 32"),
        ({"use_rslora": True}, "useRSLoRA to true"),
        ({"modules": ("q_proj", "v_proj")}, "targetModules to [q_proj, v_proj]"),
        ({"rank": 8, "lora_alpha": 8}, "rank to 8 and alpha to 8"),
    ],
)
def test_job_that_asks_for_another_form(job: TrainerJob, folder: Path, members: dict[str, Any], change: str) -> None:
    adapters.write(folder, **members)
    assert _outcome(job, folder) == (
        64,
        f"model.adapter: {folder.as_uri()} does not match training.lora; in spec.training.lora, set {change}",
    )


def test_job_that_has_no_complete_run(job: TrainerJob) -> None:
    job.plan["model"]["adapter"] = {"job": "first"}
    assert job.run("prepare") == 66
    assert job.result()["message"] == (
        f'model.adapter: the FineTuneJob "first" has no complete run below {job.output.as_uri()}; '
        "wait until it succeeds, and use the same spec.output.s3.uri in both jobs"
    )
