"""Training in several pods, as on several nodes, in a real cluster: they find each other, and learn what one learns."""

import json
from typing import Any

import pytest

from local_platform.platform import Platform

from .jobs import FINISH_SECONDS, create, demo_job, finished, kill_trainer, live_pods, stage

pytestmark = pytest.mark.e2e

STEPS = 60
# Nothing but the order of floating-point additions may differ.
TOLERANCE = 1e-4
INDEX = "batch.kubernetes.io/job-completion-index"


def job(name: str, model: str, **changes: Any) -> dict[str, Any]:
    """A job of two checkpoints and more."""
    settings: dict[str, Any] = {
        "model__s3": {"uri": model},
        "model__quantization": "None",
        "training__maxSteps": STEPS,
        "training__checkpoint": {"everySteps": 20},
        "export__gguf": [],
    }
    return demo_job(name, **settings, **changes)


def metrics(platform: Platform, namespace: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was recorded of each step."""
    key = f"{namespace}/{found['metadata']['name']}/{found['status']['runId']}/metrics.jsonl"
    return [json.loads(line) for line in platform.read(key).splitlines() if line]


def test_two_pods_learn_what_one_learns_also_after_one_of_them_was_killed(
    platform: Platform, namespace: str, random_model: str
) -> None:
    create(platform, namespace, job("alone", random_model))
    uid = create(platform, namespace, job("pair", random_model, compute__nodes=2))
    both = platform.wait(
        "two train pods",
        lambda: (found := [p for p in live_pods(platform, namespace, "train") if is_of(p, "pair")])[1:] and found,
        FINISH_SECONDS,
    )
    assert sorted(p["metadata"]["labels"][INDEX] for p in both) == ["0", "1"]
    platform.wait(
        "a checkpoint in the bucket",
        lambda: any("complete.json" in k for k in platform.objects(f"{namespace}/.runs/{uid}/checkpoints/")),
        FINISH_SECONDS,
    )
    (second,) = (p for p in both if p["metadata"]["labels"][INDEX] == "1")
    kill_trainer(second["metadata"]["uid"])
    alone, pair = (finished(platform, namespace, name) for name in ("alone", "pair"))
    for found in (alone, pair):
        assert found["status"]["phase"] == "Succeeded", found["status"].get("failure")
    assert (stage(pair, "train")["attempt"], stage(alone, "train")["attempt"]) == (1, 0)
    assert pair["status"]["effective"]["processes"] == 2
    one, two = (metrics(platform, namespace, found) for found in (alone, pair))
    assert [m["rows"] for m in two] == [m["rows"] for m in one]
    assert len(two) == STEPS
    for name in ("loss", "gradNorm"):
        assert [m[name] for m in two] == pytest.approx([m[name] for m in one], rel=TOLERANCE)
    folder = f"{namespace}/pair/{pair['status']['runId']}"
    assert "resum" in platform.read(f"{folder}/logs/train-1.log").decode().lower()
    assert f"{folder}/logs/train-1-node-1.log" in platform.objects(folder)


def is_of(pod: dict[str, Any], name: str) -> bool:
    """Say whether a pod belongs to the FineTuneJob of that name."""
    return bool(pod["metadata"]["labels"].get("finetune.dev/job") == name)
