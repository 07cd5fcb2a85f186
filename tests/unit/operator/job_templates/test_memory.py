"""The memory that pods request."""

from typing import Any

import pytest

from finetune_api.status import ModelStatus
from tests.unit.operator.world import Object, World, spec, success


def requests(parameters: int | None, export: dict[str, Any], compute: dict[str, Any] | None = None) -> Object:
    """The requests of each stage's pod in a whole run."""
    world = World(spec(export=export, compute=compute or {}))
    world.reconcile()
    world.run(message=success("prepare", model=ModelStatus(parameters=parameters)))
    world.run()
    world.run()
    jobs = (created for created in world.created if created["kind"] == "Job")
    return {
        job["metadata"]["labels"]["finetune.dev/stage"]: job["spec"]["template"]["spec"]["containers"][0]["resources"]
        for job in jobs
    }


@pytest.mark.parametrize(
    ("parameters", "export", "memory"),
    [
        (8_030_261_248, {"gguf": ["Q4_K_M"]}, "6902Mi"),
        (134_515_008, {"gguf": ["Q4_K_M"]}, "3137Mi"),
        (8_030_261_248, {"gguf": []}, "3072Mi"),
        (None, {"gguf": ["Q4_K_M"]}, "8Gi"),
    ],
    ids=["8B", "135M", "only-the-adapter", "not-counted"],
)
def test_export_requests_what_the_model_needs(parameters: int | None, export: dict[str, Any], memory: str) -> None:
    assert requests(parameters, export)["export"]["requests"] == {"cpu": "2", "memory": memory}


def test_the_other_stages_request_the_same_for_every_model() -> None:
    small, large = (requests(n, {"gguf": ["Q4_K_M"]}) for n in (134_515_008, 70_000_000_000))
    assert [small[stage] for stage in ("prepare", "train")] == [large[stage] for stage in ("prepare", "train")]


def test_what_the_job_sets_for_export_stands() -> None:
    own = {"resources": {"export": {"limits": {"memory": "5Gi"}}}}
    assert requests(8_030_261_248, {"gguf": ["Q4_K_M"]}, own)["export"] == {
        "requests": {"cpu": "2"},
        "limits": {"memory": "5Gi"},
    }
