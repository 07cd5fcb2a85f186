"""spec.suspend on a real API server, with real Jobs and the garbage collector; the tests play the kubelet."""

from typing import Any

import pytest

from finetune_api.spec import STAGES, Stage
from local_platform.operator_process import OperatorProcess, eventually
from tests.support.fake_kubelet import World


def _run_bound(world: World, stage: Stage) -> dict[str, Any]:
    """Let a stage's pod run on a node, so that it ends only when a kubelet says so."""
    pod = world.pod(stage)
    world.bind(pod)
    world.run(stage)
    return pod


def _is_terminating(world: World, pod: dict[str, Any]) -> bool:
    found = world.rest.call("GET", world.path("pods", pod["metadata"]["name"]))
    return "deletionTimestamp" in found["metadata"]


def _stage(world: World, name: Stage) -> dict[str, Any]:
    stage: dict[str, Any] = next(s for s in world.status()["stages"] if s["name"] == name)
    return stage


@pytest.mark.parametrize("stage", STAGES)
def test_a_suspended_job_continues_in_its_stage(operator: OperatorProcess, world: World, stage: Stage) -> None:
    world.apply()
    for earlier in STAGES[: STAGES.index(stage)]:
        world.end(earlier)
    pod = _run_bound(world, stage)
    world.patch(suspend=True)
    eventually(lambda: _is_terminating(world, pod), "the pod is terminating")
    assert "waiting for" in world.wait_for("Suspended")["message"]
    world.end(stage, exit_code=75, reason="Preempted", message="Stopped.")
    world.let_go(pod)
    eventually(lambda: "is suspended before" in world.condition("Ready")["message"], "the job is suspended")
    assert world.items("jobs", "-l", f"finetune.dev/stage={stage}") == []
    assert world.items("pods", "--field-selector", "status.phase!=Succeeded") == []
    assert world.status()["phase"] == "Suspended"

    world.patch(suspend=False)
    world.end(stage, 1)
    for later in STAGES[STAGES.index(stage) + 1 :]:
        world.end(later)
    world.wait_for("Succeeded")
    assert (_stage(world, stage)["attempt"], _stage(world, stage)["countedFailures"]) == (1, 0)
    events = world.items("events", "--field-selector", "involvedObject.kind=FineTuneJob")
    assert {"Suspended", "Resumed"} <= {e["reason"] for e in events}


def test_a_job_that_is_created_suspended_starts_when_it_is_resumed(operator: OperatorProcess, world: World) -> None:
    world.apply(suspend=True)
    world.wait_for("Suspended")
    assert world.condition("Accepted")["status"] == "True"
    assert "snapshot" in world.status()
    assert world.items("jobs") == []
    world.patch(suspend=False)
    world.pod("prepare")
    world.wait_for("Suspended", "False")


def test_a_result_that_comes_while_the_job_is_being_suspended_is_kept(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.end("prepare")
    pod = _run_bound(world, "train")
    world.patch(suspend=True)
    eventually(lambda: _is_terminating(world, pod), "the pod is terminating")
    world.end("train")
    eventually(lambda: _stage(world, "train")["state"] == "Succeeded", "the result is kept")
    world.let_go(pod)
    eventually(lambda: "is suspended before export" in world.condition("Ready")["message"], "the job is suspended")
    world.patch(suspend=False)
    world.pod("export")
    assert world.items("pods", "-l", "finetune.dev/stage=train,finetune.dev/attempt=1") == []
