"""What the GPU was held for is counted, however an attempt ends."""

from typing import Any

import pytest

from tests.unit.operator.world import Object, World, spec, success


def training(**members: Any) -> tuple[World, Object]:
    """A world whose train runs, and the pod of it."""
    world = World(spec(**members))
    world.reconcile()
    world.run()
    return world, run(world)


def run(world: World) -> Object:
    pod = world.start_pod(world.live_job())
    world.run_pod(pod)
    world.reconcile()
    return pod


def end(world: World, pod: Object, code: int = 143, *, disrupted: bool = False) -> None:
    """The container ends and its pod is gone before the operator looks."""
    world.end_pod(pod, code, disrupted=disrupted)
    world.settle()
    if pod in world.pods:
        world.pods.remove(pod)
    world.reconcile()


def test_attempts_add_up() -> None:
    world = World()
    world.reconcile()
    world.run()
    world.run(1, seconds=100)
    world.wait()
    world.run(seconds=50)
    assert world.status["gpuSeconds"] == 150
    assert "gpuSince" not in world.status


def test_the_other_stages_hold_no_gpu() -> None:
    world = World()
    world.reconcile()
    world.run_pod(world.start_pod(world.live_job()))
    world.reconcile()
    assert "gpuSince" not in world.status


def test_a_container_that_was_never_seen_to_run_counts() -> None:
    world = World()
    world.reconcile()
    world.run()
    pod = world.start_pod(world.live_job())
    world.run_pod(pod)
    world.now = world.now.replace(minute=world.now.minute + 2)
    world.end_pod(pod, 0, success("train"))
    world.settle()
    world.reconcile()
    assert world.status["gpuSeconds"] == 120


def test_time_to_start_does_not_count() -> None:
    world = World()
    world.reconcile()
    world.run()
    pod = world.start_pod(world.live_job())
    world.wait(500)
    world.run_pod(pod)
    world.wait(100)
    end(world, pod, disrupted=True)
    assert world.status["gpuSeconds"] == 100


@pytest.mark.parametrize("disrupted", [True, False])
def test_a_pod_that_is_gone_with_its_node_counts(disrupted: bool) -> None:
    world, pod = training()
    world.wait(100)
    end(world, pod, disrupted=disrupted)
    assert world.stage("train")["attempt"] == 1
    assert world.status["gpuSeconds"] == 100


def test_an_attempt_that_ends_at_the_deadline_counts() -> None:
    world, _ = training(activeDeadlineSeconds=1000)
    world.wait(939)
    assert not world.finished()
    world.wait(1)
    assert world.status["failure"]["reason"] == "DeadlineExceeded"
    assert world.status["gpuSeconds"] == 940
    assert "gpuSince" not in world.status


def test_an_attempt_whose_job_somebody_deletes_counts() -> None:
    world, pod = training()
    world.wait(100)
    world.delete_job(world.live_job())
    world.reconcile()
    assert world.status["gpuSeconds"] == 100
    world.wait(50)
    end(world, pod)
    assert world.status["gpuSeconds"] == 100


def test_a_queue_that_takes_the_gpu_ends_the_time_and_one_that_gives_it_back_starts_another() -> None:
    world, pod = training()
    job = world.live_job()
    world.wait(100)
    world.hold(job)
    end(world, pod)
    assert world.status["gpuSeconds"] == 100
    world.wait(5000)
    world.admit(job)
    world.reconcile()
    pod = run(world)
    world.wait(50)
    world.end_pod(pod, 0, success("train"))
    world.settle()
    world.reconcile()
    assert world.stage("train")["attempt"] == 0
    assert world.status["gpuSeconds"] == 150


def test_what_a_preempted_pod_takes_to_end_is_counted_once() -> None:
    world, pod = training()
    world.wait(100)
    world.hold(world.live_job())
    world.wait(50)
    assert "gpuSeconds" not in world.status
    world.end_pod(pod, 75)
    world.reconcile()
    world.settle()
    world.reconcile()
    assert world.status["gpuSeconds"] == 150


def test_an_operator_that_was_away_does_not_count_the_time_in_the_queue() -> None:
    world, pod = training()
    world.wait(100)
    world.hold(world.live_job())
    world.now = world.now.replace(hour=5)
    end(world, pod)
    assert world.status["gpuSeconds"] == 100


def test_a_result_that_is_read_again_takes_no_gpu() -> None:
    world = World()
    world.reconcile()
    world.run()
    world.lose()
    run(world)
    assert "gpuSince" not in world.status


TWO_GPUS = {"compute": {"accelerator": {"extendedResource": {"count": 2}}}}


def test_each_gpu_of_a_pod_counts() -> None:
    world, pod = training(**TWO_GPUS)
    world.wait(100)
    assert world.status["gpuCount"] == 2
    world.end_pod(pod, 0, success("train"))
    world.settle()
    world.reconcile()
    assert world.status["gpuSeconds"] == 200
    assert "gpuCount" not in world.status


def test_each_gpu_of_a_pod_that_is_gone_counts() -> None:
    world, pod = training(**TWO_GPUS)
    world.wait(100)
    end(world, pod, disrupted=True)
    assert world.status["gpuSeconds"] == 200


def test_the_gpus_that_a_pod_had_count_though_compute_was_edited_since() -> None:
    world, pod = training(**TWO_GPUS)
    world.edit(accelerator={"extendedResource": {"count": 4}})
    world.wait(100)
    world.end_pod(pod, 1)
    world.settle()
    world.reconcile()
    assert world.status["gpuSeconds"] == 200
    world.wait()
    world.run(1, seconds=100)
    assert world.status["gpuSeconds"] == 600
