"""The pod of a stage is force-deleted right after it succeeded: its result is read from the bucket, without a GPU."""

from typing import Any

import pytest

from finetune_api.spec import STAGES, Stage
from finetune_api.status import EvaluationStatus
from local_platform.operator_process import OperatorProcess, eventually
from tests.support.fake_kubelet import World

BETTER = EvaluationStatus(verdict="Better")


def end_without_a_trace(operator: OperatorProcess, world: World, stage: Stage) -> None:
    """Let a stage succeed while the operator looks away, and its pod be gone when it looks again."""
    pod = world.run(stage)
    # Not killed, so that nobody has to wait for the end of its Lease.
    operator.stop()
    world.end(stage)
    world.let_go(pod)
    world.kubectl("wait", "job", "-l", f"finetune.dev/stage={stage}", "--for=condition=Complete", "--timeout=30s")
    assert not world.items("pods", "-l", f"finetune.dev/stage={stage}")
    operator.start()


def container(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_the_result_is_read_again(operator: OperatorProcess, world: World, stage: Stage) -> None:
    world.apply()
    for each in STAGES:
        if each != stage:
            world.end(each, evaluation=BETTER if each == "train" else None)
            continue
        end_without_a_trace(operator, world, each)
        reading = container(world.pod(each, attempt=1))
        assert reading["args"][-1] == "--report"
        assert not [r for r in reading["resources"]["limits"] if "/" in r]
        world.end(each, attempt=1, evaluation=BETTER if each == "train" else None)
    world.wait_for("Succeeded")
    status = world.status()
    assert status["evaluation"]["verdict"] == "Better"
    [found] = [s for s in status["stages"] if s["name"] == stage]
    assert (found["attempt"], found["countedFailures"], found["reportOnly"]) == (1, 0, True)
    assert len(world.items("jobs")) == 4


def test_a_stage_without_a_stored_result_runs_again(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.end("prepare")
    end_without_a_trace(operator, world, "train")
    world.end("train", attempt=1, exit_code=72, reason="ResultMissing", message="train left no result.")
    retried = container(world.pod("train", attempt=2, seconds=60))
    assert "--report" not in retried["args"]
    assert retried["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    eventually(lambda: world.status()["stages"][1]["countedFailures"] == 1, "the failure is counted")
