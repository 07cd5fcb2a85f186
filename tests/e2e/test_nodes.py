"""Training in several pods, as on several nodes, in a real cluster: they find each other, and learn what one learns."""

from typing import Any

import pytest

from local_platform.platform import Platform

from .jobs import (
    FINISH_SECONDS,
    assert_resumed_once,
    create,
    finished,
    has_checkpoint,
    kill_trainer,
    live_pods,
    metrics,
    stage,
    tiny_job,
)

pytestmark = pytest.mark.e2e

STEPS = 60
# Nothing but the order of floating-point additions may differ.
TOLERANCE = 1e-4
INDEX = "batch.kubernetes.io/job-completion-index"


def test_two_pods_learn_what_one_learns_also_after_one_of_them_was_killed(
    platform: Platform, namespace: str, random_model: str
) -> None:
    create(platform, namespace, tiny_job("alone", random_model, steps=STEPS, checkpoint_every=20))
    several = tiny_job("pair", random_model, steps=STEPS, checkpoint_every=20, compute__nodes=2)
    uid = create(platform, namespace, several)
    both = platform.wait(
        "two train pods",
        lambda: (found := [p for p in live_pods(platform, namespace, "train") if is_of(p, "pair")])[1:] and found,
        FINISH_SECONDS,
    )
    assert sorted(p["metadata"]["labels"][INDEX] for p in both) == ["0", "1"]
    platform.wait("a checkpoint in the bucket", lambda: has_checkpoint(platform, namespace, uid), FINISH_SECONDS)
    (second,) = (p for p in both if p["metadata"]["labels"][INDEX] == "1")
    kill_trainer(second["metadata"]["uid"])
    alone, pair = (finished(platform, namespace, name) for name in ("alone", "pair"))
    for found in (alone, pair):
        assert found["status"]["phase"] == "Succeeded", found["status"].get("failure")
    assert (stage(pair, "train")["attempt"], stage(alone, "train")["attempt"]) == (1, 0)
    assert pair["status"]["effective"]["processes"] == 2
    one, two = (metrics(platform, found) for found in (alone, pair))
    assert [m["rows"] for m in two] == [m["rows"] for m in one]
    assert len(two) == STEPS
    for name in ("loss", "gradNorm"):
        assert [m[name] for m in two] == pytest.approx([m[name] for m in one], rel=TOLERANCE)
    assert_resumed_once(platform, pair, STEPS)
    folder = f"{namespace}/pair/{pair['status']['runId']}"
    assert f"{folder}/logs/train-1-node-1.log" in platform.objects(folder)


def is_of(pod: dict[str, Any], name: str) -> bool:
    """Say whether a pod belongs to the FineTuneJob of that name."""
    return bool(pod["metadata"]["labels"].get("finetune.dev/job") == name)
