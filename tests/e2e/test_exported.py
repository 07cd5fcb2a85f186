"""A job of files for servers, in pods: what the status, the bucket and the manifest say of it."""

import json
from typing import Any

import pytest

from local_platform.commands import ROOT
from local_platform.platform import Platform

from .jobs import condition, create, finished, tiny_job

pytestmark = pytest.mark.e2e
NAME = "exported"
NAMESPACE = "e2e-exported"
GGUFS = ("F16", "Q8_0", "Q4_K_M")


def manifest(name: str, model: str) -> dict[str, Any]:
    return tiny_job(
        name,
        model,
        steps=12,
        checkpoint_every=12,
        export={"gguf": list(GGUFS), "loraGGUF": True},
        output__reuse="Identical",
    )


@pytest.fixture(scope="module")
def job(platform: Platform, random_model: str) -> dict[str, Any]:
    """The finished FineTuneJob."""
    platform.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait")
    platform.namespace(NAMESPACE)
    create(platform, NAMESPACE, manifest(NAME, random_model))
    job = finished(platform, NAMESPACE, NAME)
    assert job["status"]["phase"] == "Succeeded", job["status"].get("failure")
    return job


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
    assert status["dataset"]["examples"] == len((ROOT / "examples/coach.jsonl").read_text().splitlines())
    assert status["effective"]["gpu"] == "none (CPU)"
    assert float(status["evaluation"]["holdoutLossTuned"]) < float(status["evaluation"]["holdoutLossBase"])
    table = platform.kubectl("get", "ftj", NAME, "-n", NAMESPACE).splitlines()
    assert table[0].split() == [
        *("NAME", "STATE", "STAGE", "ACTIVITY", "PROGRESS", "LOSS", "ETA", "VERDICT", "REASON", "AGE")
    ]


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


def test_every_file_is_proven(job: dict[str, Any]) -> None:
    artifacts = {a["name"]: a for a in job["status"]["artifacts"]}
    for name in (*GGUFS, "LoRA"):
        assert float(artifacts[name]["parity"]["retainedGain"]) == pytest.approx(1, abs=0.2)


def test_the_same_job_again_ends_with_the_same_files(
    platform: Platform, job: dict[str, Any], random_model: str
) -> None:
    create(platform, NAMESPACE, manifest("twin", random_model))
    twin = finished(platform, NAMESPACE, "twin")
    assert condition(twin, "Succeeded")["reason"] == "ReusedArtifacts"
    assert twin["status"]["reusedFrom"] == job["status"]["outputUri"]
    assert twin["status"]["artifacts"] == job["status"]["artifacts"]
    jobs = platform.get("jobs", "-n", NAMESPACE, "-l", "finetune.dev/job=twin,finetune.dev/stage=train")
    assert not jobs["items"]
