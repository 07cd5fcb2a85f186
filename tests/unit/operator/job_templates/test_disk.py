"""The disk that pods ask for."""

from typing import Any

import pytest

from finetune_api.status import ScratchStatus
from finetune_operator.job_templates import disk
from tests.unit.operator.world import World, spec, success

FOUND = ScratchStatus(train_mib=20_000, export_mib=50_000)


def requests(compute: dict[str, Any] | None = None, scratch: ScratchStatus | None = FOUND) -> dict[str, str | None]:
    """The request of each stage's pod in a whole run."""
    world = World(spec(compute=compute or {}))
    world.reconcile()
    for stage in ("prepare", "train", "export"):
        world.run(message=success(stage, scratch=scratch if stage == "prepare" else None))
    found = {}
    for job in (x for x in world.created if x["kind"] == "Job"):
        (container,) = job["spec"]["template"]["spec"]["containers"]
        stage = job["metadata"]["labels"]["finetune.dev/stage"]
        found[stage] = container["resources"]["requests"].get("ephemeral-storage")
    return found


def resources(**train: dict[str, str]) -> dict[str, Any]:
    return {"resources": {"train": train}}


def test_train_and_export_ask_for_what_prepare_found() -> None:
    assert requests() == {"prepare": None, "train": "20000Mi", "export": "50000Mi"}


def test_a_trainer_that_says_nothing_of_disk_asks_for_none() -> None:
    assert requests(scratch=None) == {"prepare": None, "train": None, "export": None}


def test_a_request_of_the_job_stands() -> None:
    assert requests(resources(requests={"ephemeral-storage": "90Gi"}))["train"] == "90Gi"


def test_a_request_for_something_else_is_kept_beside_it() -> None:
    found = disk.requested({"requests": {"cpu": "4"}, "limits": {"memory": "1Gi"}}, 10, None)
    assert found == {"requests": {"cpu": "4", "ephemeral-storage": "10Mi"}, "limits": {"memory": "1Gi"}}


@pytest.mark.parametrize(
    ("limit", "asked"),
    [
        ("10Gi", "10Gi"),
        ("20Gi", "20000Mi"),
        ("20G", "20G"),
        ("21G", "20000Mi"),
        ("0.01Ti", "0.01Ti"),
        ("19999.5Mi", "19999.5Mi"),
        ("20971520000", "20000Mi"),
        ("20971519999", "20971519999"),
        ("20971519999999m", "20971519999999m"),
        ("20971520k", "20000Mi"),
    ],
)
def test_no_more_than_the_limit_is_asked_for(limit: str, asked: str) -> None:
    assert requests(resources(limits={"ephemeral-storage": limit}))["train"] == asked


def test_no_more_than_the_scratch_space_is_asked_for() -> None:
    assert requests({"scratch": {"size": "30Gi"}}) == {"prepare": None, "train": "20000Mi", "export": "30Gi"}
