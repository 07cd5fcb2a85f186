"""The operator is killed, the API server goes away, jobs are deleted and created again: nothing runs twice."""

import time

from local_platform.operator_process import OperatorProcess, eventually
from tests.support.fake_kubelet import Object, World


def test_an_operator_killed_between_stages_continues_where_it_was(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.run("prepare")
    operator.kill()
    world.end("prepare")
    time.sleep(0.5)
    operator.start()
    world.end("train")
    operator.kill()
    operator.start()
    world.end("export")
    world.wait_for("Succeeded")
    assert len(world.items("jobs")) == 3


def test_a_restart_of_the_api_server_holds_nothing_up(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.end("prepare")
    world.run("train")
    world.plane.restart("apiserver")
    # It ends if it could not renew its Lease, which depends on how long that took.
    operator.start_if_it_ended()
    world.end("train")
    world.pod("export", seconds=60)
    assert operator.answers("/healthz")
    assert len(world.items("jobs")) == 3


def test_a_job_made_again_under_its_name_waits_for_the_old_pod(operator: OperatorProcess, world: World) -> None:
    before = world.rest.version("pods", world.namespace)
    world.apply()
    world.end("prepare")
    pod = world.pod("train")
    world.bind(pod)
    world.run("train")
    world.kubectl("delete", "finetunejob", world.name, "--wait=false")
    eventually(lambda: not world.items("finetunejobs"), "the FineTuneJob is gone")
    world.apply()
    ready = eventually(
        lambda: c if (c := world.condition("Ready")).get("reason") == "WaitingForPreviousRun" else {},
        "WaitingForPreviousRun",
    )
    assert pod["metadata"]["name"] in ready["message"] or "-train-0" in ready["message"]
    # The node lets the old pod go.
    world.let_go(pod)
    world.end("prepare")
    world.run("train")
    last = world.pod("train")["metadata"]["resourceVersion"]
    assert _most_train_pods(world.rest.events("pods", world.namespace, before, last)) == 1


def _most_train_pods(events: list[Object]) -> int:
    live, most = set[str](), 0
    for event in events:
        pod = event["object"]
        if pod["metadata"]["labels"].get("finetune.dev/stage") != "train":
            continue
        gone = event["type"] == "DELETED" or pod["status"]["phase"] in ("Succeeded", "Failed")
        (live.discard if gone else live.add)(pod["metadata"]["uid"])
        most = max(most, len(live))
    return most
