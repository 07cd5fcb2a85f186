"""spec.ttlSecondsAfterFinished on a real API server, with the real garbage collector; the tests play the kubelet."""

from local_platform.operator_process import OperatorProcess, eventually
from tests.support.fake_kubelet import World


def _fail(world: World, **spec: object) -> None:
    world.apply(**spec)
    world.end("prepare", exit_code=65, reason="InvalidDataset", message="No.")
    world.wait_for("Finished")


def _children(world: World) -> list[str]:
    return [
        f"{child['kind']}/{child['metadata']['name']}"
        for child in world.items("jobs,pods,configmaps", "-l", f"finetune.dev/job={world.name}")
    ]


def test_the_children_of_a_finished_job_go_when_its_time_is_up(operator: OperatorProcess, world: World) -> None:
    _fail(world, ttlSecondsAfterFinished=3600)
    world.patch(ttlSecondsAfterFinished=3)
    eventually(lambda: not _children(world), "the children are gone")
    assert world.status()["failure"]["message"].startswith("No. ")
    world.patch(retryGeneration=1)
    world.pod("prepare", 1)


def test_the_job_itself_goes_if_that_is_asked_for(operator: OperatorProcess, world: World) -> None:
    _fail(world, ttlSecondsAfterFinished=3600, ttlTarget="FineTuneJob")
    world.patch(ttlSecondsAfterFinished=3)
    eventually(lambda: not world.items("finetunejobs"), "the FineTuneJob is gone")
    eventually(lambda: not _children(world), "its children are gone")


def test_the_time_may_be_set_when_the_job_is_over(operator: OperatorProcess, world: World) -> None:
    _fail(world)
    assert len(_children(world)) == 4
    world.patch(ttlSecondsAfterFinished=0)
    eventually(lambda: not _children(world), "the children are gone")
