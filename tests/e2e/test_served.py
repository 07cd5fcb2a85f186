"""A job of a visible effect, in pods: every file is proven, and answers as trained."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.export import merge
from finetune_trainer.export.gguf import convert as gguf_convert
from finetune_trainer.export.parity import check as parity_check
from finetune_trainer.export.parity.check import Rejected
from finetune_trainer.model.adapter import WEIGHTS
from local_cluster.layout import cache
from local_platform.platform import Platform
from local_platform.smollm2 import model_dir

from . import served
from .jobs import condition, create, finished
from .served import GGUFS, LEARNED, NAME, Served

pytestmark = pytest.mark.e2e
NAMESPACE = "served"


@pytest.fixture(scope="module")
def job(platform: Platform) -> dict[str, Any]:
    """The finished FineTuneJob."""
    platform.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait")
    platform.namespace(NAMESPACE)
    return served.finish(platform, NAMESPACE)


@pytest.fixture(scope="module")
def result(job: dict[str, Any]) -> Served:
    return served.result()


@pytest.fixture(autouse=True)
def converter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CPP_DIR", str(cache() / "llama.cpp"))


def test_the_status_tells_the_story(platform: Platform, job: dict[str, Any]) -> None:
    status = job["status"]
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Accepted": "True",
        "Finished": "True",
        "Succeeded": "True",
        "Failed": "False",
        "Ready": "True",
        "Suspended": "False",
        "Evaluated": "True",
    }
    assert [s["state"] for s in status["stages"]] == ["Succeeded"] * 3
    assert status["observedGeneration"] == job["metadata"]["generation"]
    assert status["dataset"]["examples"] == served.ROWS
    assert status["effective"]["gpu"] == "none (CPU)"
    assert float(status["evaluation"]["holdoutLossTuned"]) < float(status["evaluation"]["holdoutLossBase"])
    table = platform.kubectl("get", "ftj", NAME, "-n", NAMESPACE).splitlines()
    assert table[0].split() == ["NAME", "STATE", "STAGE", "PROGRESS", "LOSS", "ETA", "AGE"]


def test_the_bucket_has_what_status_and_manifest_say(platform: Platform, job: dict[str, Any]) -> None:
    status = job["status"]
    run = f"{NAMESPACE}/{NAME}/{status['runId']}/"
    files = platform.objects(run)
    manifest = json.loads(platform.read(f"{run}manifest.json"))
    listed = {f"{run}{f['path']}": f["sizeBytes"] for f in manifest["files"]}
    assert {k: v for k, v in files.items() if k in listed} == listed
    assert {a["type"] for a in status["artifacts"]} == {"LoRAAdapter", "GGUF", "LoRAGGUF", "Modelfile"}
    for artifact in status["artifacts"]:
        assert files[run + artifact["path"]] == artifact["sizeBytes"]
    latest = json.loads(platform.read(f"{NAMESPACE}/{NAME}/latest.json"))
    assert latest["runId"] == status["runId"]
    report = json.loads(platform.read(f"{run}report.json"))
    assert report["data"]
    assert report["evaluation"]
    assert any("/tensorboard/" in key for key in files)


def test_the_same_job_again_ends_with_the_same_files(platform: Platform, job: dict[str, Any]) -> None:
    again = served.manifest(platform)
    again["metadata"]["name"] = "twin"
    create(platform, NAMESPACE, again)
    twin = finished(platform, NAMESPACE, "twin")
    assert condition(twin, "Succeeded")["reason"] == "ReusedArtifacts"
    assert twin["status"]["reusedFrom"] == job["status"]["outputUri"]
    assert twin["status"]["artifacts"] == job["status"]["artifacts"]
    jobs = platform.get("jobs", "-n", NAMESPACE, "-l", "finetune.dev/job=twin,finetune.dev/stage=train")
    assert not jobs["items"]


def test_the_status_tells_how_near_every_file_is_to_what_was_trained(job: dict[str, Any]) -> None:
    artifacts = {a["name"]: a for a in job["status"]["artifacts"]}
    proofs = {name: artifacts[name]["parity"] for name in (*GGUFS, "LoRA")}
    for proof in proofs.values():
        assert float(proof["retainedGain"]) == pytest.approx(1, abs=0.2)
        assert float(proof["top1"]) > 0.9
    assert float(proofs["Q4_K_M"]["kl"]) > float(proofs["F16"]["kl"])


def test_the_answer_changes_in_the_trained_way(job: dict[str, Any], result: Served) -> None:
    assert job["status"]["evaluation"]["verdict"] == "Better"
    assert LEARNED not in result.answers["base"]
    assert result.answers["tuned"].strip() == LEARNED
    assert {kind: answer.strip() for kind, answer in result.answers["gguf"].items()} == dict.fromkeys(GGUFS, LEARNED)


def refuse(path: Path, result: Served) -> None:
    with pytest.raises(Rejected, match="is not the model that was trained"):
        parity_check.check(path, "F16", result.reference, None, trained_in_4bit=True, merge_base="Original")


def test_a_file_of_the_base_is_refused(result: Served) -> None:
    refuse(served.base_gguf(), result)


def test_a_scrambled_adapter_is_refused(result: Served, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    adapter = shutil.copytree(result.adapter, tmp_path / "adapter")
    tensors = load_file(adapter / WEIGHTS)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in tensors.items():
        if "lora_B" in name:
            tensors[name] = tensor[torch.randperm(len(tensor), generator=generator)].clone()
    save_file(tensors, adapter / WEIGHTS)
    merge.merge(model_dir(), adapter, tmp_path / "merged", None, None, lambda percent: None)
    gguf_convert.convert(tmp_path / "merged", tmp_path / "scrambled.gguf", "F16", tmp_path, lambda percent: None)
    refuse(tmp_path / "scrambled.gguf", result)
