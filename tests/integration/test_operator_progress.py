"""Progress pushes with tokens as the kubelet gets them, over the operator's own TLS."""

import json
from typing import Any

import pytest

from local_platform.control_plane import ControlPlane
from local_platform.operator_process import OperatorProcess, eventually
from tests.support.fake_kubelet import World
from tests.support.pusher import Pusher


@pytest.fixture(scope="module")
def shared(control_plane: ControlPlane, operator_process: OperatorProcess) -> Pusher:
    """A running train pod whose pushes are all refused."""
    if not operator_process.runs:
        operator_process.start()
    control_plane.kubectl("create", "namespace", "progress-refused")
    world = World(control_plane, "progress-refused")
    world.apply()
    world.end("prepare")
    return Pusher(world, operator_process, world.run("train"))


@pytest.fixture
def pusher(operator: OperatorProcess, world: World) -> Pusher:
    """The running train pod of a job."""
    world.apply()
    world.end("prepare")
    return Pusher(world, operator, world.run("train"))


def test_the_running_pod_s_progress_is_in_the_status(pusher: Pusher, world: World) -> None:
    assert pusher.push(pusher.token(), loss="0.83", etaSeconds=250) == 200
    progress: dict[str, Any] = eventually(lambda: world.status().get("progress", {}), "status.progress")
    assert {k: progress[k] for k in ("steps", "eta", "loss")} == {"steps": "37/60", "eta": ">4m10s", "loss": "0.83"}
    columns = world.kubectl("get", "finetunejob", world.name)
    assert "37/60" in columns
    assert ">4m10s" in columns


def test_the_rest_of_the_status_survives_a_push_and_the_other_way_round(pusher: Pusher, world: World) -> None:
    eventually(lambda: "running" in world.condition("Ready")["message"], "the operator saw the pod run")
    before = world.status()
    pusher.push(pusher.token())
    eventually(lambda: world.status().get("progress"), "status.progress")
    assert {k: v for k, v in world.status().items() if k != "progress"} == before
    world.end("train")
    world.pod("export")
    assert world.status()["progress"]["step"] == 37


def test_old_news_does_not_turn_the_status_back(pusher: Pusher, world: World) -> None:
    token = pusher.token()
    pusher.push(token, step=60)
    eventually(lambda: world.status().get("progress"), "status.progress")
    pusher.push(token, step=1, activity="Saving")
    eventually(lambda: "finetune_job_step" in pusher.operator.read("/metrics"), "the metrics")
    assert world.status()["progress"]["step"] == 60


def test_a_token_of_another_audience_is_refused(shared: Pusher) -> None:
    assert shared.push(shared.token(audience="https://kubernetes.default.svc.cluster.local")) == 401


def test_a_token_of_another_pod_is_refused(shared: Pusher) -> None:
    stranger = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger"}}
    stranger["spec"] = {"containers": [{"name": "c", "image": "i"}]}
    shared.world.kubectl("create", "-f", "-", stdin=json.dumps(stranger))
    [pod] = [p for p in shared.world.items("pods") if p["metadata"]["name"] == "stranger"]
    assert shared.push(shared.token(pod=pod)) == 403


def test_a_token_of_a_stage_that_has_ended_is_refused(shared: Pusher) -> None:
    assert shared.push(shared.token(pod=shared.world.pod("prepare")), stage="prepare") == 403


def test_a_pod_may_not_report_on_another_job(shared: Pusher) -> None:
    World(shared.world.plane, shared.world.namespace, "neighbour").apply()
    assert shared.push(shared.token(), name="neighbour") == 403


def test_a_token_that_is_made_up_is_refused(shared: Pusher) -> None:
    assert shared.push("made-up") == 401


@pytest.mark.parametrize("question", ["get secrets", "list secrets", "get pods --subresource=log"])
def test_the_operator_may_not(operator: OperatorProcess, control_plane: ControlPlane, question: str) -> None:
    kubeconfig = ("--kubeconfig", str(operator.installed.kubeconfig), "-n", "default")
    done = control_plane.run("kubectl", *kubeconfig, "auth", "can-i", *question.split())
    assert (done.stdout.strip(), done.returncode) == ("no", 1)


def test_the_operator_gets_no_secret_of_a_user(operator: OperatorProcess, world: World) -> None:
    world.kubectl("create", "secret", "generic", "s3", "--from-literal=AWS_SECRET_ACCESS_KEY=hunter2")
    done = world.plane.run(
        "kubectl", "--kubeconfig", str(operator.installed.kubeconfig), "-n", world.namespace, "get", "secret", "s3"
    )
    assert "forbidden" in done.stderr
    assert "hunter2" not in done.stdout
