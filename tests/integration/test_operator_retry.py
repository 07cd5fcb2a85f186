"""spec.retryGeneration on a real API server; the tests play the kubelet."""

import pytest

from local_platform.operator_process import OperatorProcess, eventually
from tests.support.fake_kubelet import World


def test_a_failed_job_is_opened_again_and_succeeds(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.end("prepare")
    world.end("train", exit_code=79, reason="OutOfGPUMemory", message="It does not fit.")
    world.wait_for("Failed")
    world.patch(retryGeneration=1)
    world.end("train", 1)
    world.end("export")
    world.wait_for("Succeeded")
    status = world.status()
    assert "failure" not in status
    assert status["retryGeneration"] == 1
    assert [stage["attempt"] for stage in status["stages"]] == [0, 1, 0]


def test_a_job_that_fails_again_waits_for_the_next_generation(operator: OperatorProcess, world: World) -> None:
    world.apply()
    for generation in range(2):
        world.end("prepare", generation, exit_code=65, reason="InvalidDataset", message=f"No {generation}.")
        eventually(lambda g=generation: f"No {g}." in world.status().get("failure", {}).get("message", ""), "it failed")  # type: ignore[misc]
        assert len(world.items("jobs")) == generation + 1
        world.patch(retryGeneration=generation + 1)
    world.pod("prepare", 2)


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("change", [{"retryGeneration": 1}, {"retryGeneration": None}], ids=["lower", "removed"])
def test_a_generation_cannot_go_back(world: World, change: dict[str, int | None]) -> None:
    world.apply(retryGeneration=2)
    with pytest.raises(AssertionError, match="retryGeneration may only grow"):
        world.patch(**change)
