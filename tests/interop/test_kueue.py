"""FineTuneJobs in the queues of a real Kueue, on a real API server; the tests play the kubelet."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_api.spec import Stage
from local_platform.commands import ROOT
from local_platform.control_plane import ControlPlane
from local_platform.operator_process import OperatorProcess, eventually
from tests.support.control_plane import control_plane as control_plane
from tests.support.fake_kubelet import Object, World
from tests.support.kueue import GPU, Kueue
from tests.support.operator import installed as installed
from tests.support.operator import operator as operator
from tests.support.operator import operator_process as operator_process

CPU_ONLY = {"cpu": "16", "memory": "64Gi"}


@pytest.fixture(scope="session")
def kueue(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kueue]:
    with Kueue(control_plane, tmp_path_factory.mktemp("kueue")).running() as kueue:
        kueue.priority("low", 1)
        kueue.priority("high", 100)
        yield kueue


class Team:
    """A namespace with a queue for one GPU and a queue without any."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace

    def job(self, name: str, **kueue: Any) -> World:
        """Create a FineTuneJob that trains in the one queue and does the rest in the other."""
        world = World(self.plane, self.namespace, name)
        rest = {"stageQueueNames": {"prepare": "cpu", "export": "cpu"}}
        world.apply(scheduling={"kueue": {"queueName": "gpu", **rest, **kueue}})
        return world


@pytest.fixture
def team(control_plane: ControlPlane, kueue: Kueue, request: pytest.FixtureRequest) -> Team:
    """A team of this test alone."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[-40:].strip("-")
    control_plane.kubectl("create", "namespace", name)
    kueue.queues(name, gpu={**CPU_ONLY, GPU: "1"}, cpu=CPU_ONLY)
    return Team(control_plane, name)


def waits(world: World, words: str) -> Object:
    """Wait until a job says that it is queued, and why."""
    return eventually(
        lambda: c if (c := world.condition("Ready")).get("reason") == "Queued" and words in c["message"] else {},
        f"Queued, {words}: {world.status()}",
    )


def stage_job(world: World, stage: Stage) -> Object:
    """Return the one Job of a stage."""
    [job] = world.items("jobs", "-l", f"finetune.dev/job={world.name},finetune.dev/stage={stage}")
    return job


def pods(world: World, stage: Stage) -> list[Object]:
    return world.items("pods", "-l", f"finetune.dev/job={world.name},finetune.dev/stage={stage}")


def stage_status(world: World, stage: Stage) -> Object:
    found: Object = next(s for s in world.status()["stages"] if s["name"] == stage)
    return found


def test_the_queues_of_the_documentation_are_what_kueue_takes(kueue: Kueue, control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "namespace", "team")
    [example] = re.findall(r"```yaml\n(apiVersion.*?)```", (ROOT / "docs/kueue.md").read_text(), re.DOTALL)
    control_plane.kubectl("apply", "-f", "-", stdin=example)
    eventually(
        lambda: any(
            c["type"] == "Active" and c["status"] == "True"
            for c in control_plane.get("localqueue", "gpu", "-n", "team").get("status", {}).get("conditions", [])
        ),
        "the queue is active",
    )


def test_a_free_queue_lets_a_job_through_to_its_end(operator: OperatorProcess, team: Team) -> None:
    coach = team.job("coach")
    for stage in ("prepare", "train", "export"):
        coach.end(stage)
    coach.wait_for("Succeeded")
    queues = {w["spec"]["queueName"] for w in coach.items("workloads.v1beta2.kueue.x-k8s.io")}
    assert queues == {"gpu", "cpu"}


def test_a_job_waits_in_the_words_of_kueue_until_there_is_quota(operator: OperatorProcess, team: Team) -> None:
    first, second = team.job("first"), team.job("second")
    first.end("prepare")
    first.run("train")
    second.end("prepare")
    waits(second, f"insufficient unused quota for {GPU}")
    assert second.status()["phase"] == "Pending"
    assert pods(second, "train") == []
    first.end("train")
    second.end("train")
    assert stage_status(second, "train")["countedFailures"] == 0


def test_the_gpu_is_free_for_the_next_job_while_the_last_one_exports(operator: OperatorProcess, team: Team) -> None:
    first, second = team.job("first"), team.job("second")
    first.end("prepare")
    first.run("train")
    second.end("prepare")
    waits(second, GPU)
    first.end("train")
    first.run("export")
    second.run("train")
    assert stage_status(first, "export")["state"] == "Running"


def preempted(team: Team) -> tuple[World, World, Object]:
    """A job that trained until one of a higher priority came, that one, and the pod of the first, which still ends."""
    low = team.job("low", workloadPriorityClassName="low")
    low.end("prepare")
    pod = low.run("train")
    low.bind(pod)
    high = team.job("high", workloadPriorityClassName="high")
    high.end("prepare")
    eventually(lambda: "deletionTimestamp" in pods(low, "train")[0]["metadata"], "the pod is being stopped")
    return low, high, pod


def ended_job_is_seen(world: World) -> Object:
    """Wait until the Job controller has seen that no pod of a preempted Job runs any more."""
    return eventually(lambda: j if (j := stage_job(world, "train"))["status"].get("terminating") == 0 else {}, "seen")


@pytest.mark.parametrize("exit_code", [75, 69])
def test_a_preempted_job_continues_in_the_same_attempt(operator: OperatorProcess, team: Team, exit_code: int) -> None:
    low, high, pod = preempted(team)
    high.run("train")
    waits(low, "again (Preempted)")
    low.end("train", exit_code=exit_code, message="It was asked to stop.", checkpoint_step=30)
    conditions = {c["type"] for c in ended_job_is_seen(low)["status"]["conditions"] if c["status"] == "True"}
    assert conditions == {"Suspended"}, "what the pod ended with failed the Job"
    low.let_go(pod)
    high.end("train")
    again = eventually(lambda: pods(low, "train"), "a new pod")[0]
    assert again["metadata"]["uid"] != pod["metadata"]["uid"]
    low.end("train")
    low.end("export")
    low.wait_for("Succeeded")
    train = stage_status(low, "train")
    assert (train["attempt"], train["countedFailures"]) == (0, 0)


def test_a_preempted_job_that_is_let_in_again_at_once_waits_for_its_pod_to_end(
    operator: OperatorProcess, team: Team
) -> None:
    low, high, pod = preempted(team)
    high.kubectl("delete", "finetunejob", "high")
    eventually(lambda: not stage_job(low, "train")["spec"]["suspend"], "Kueue lets the job in again")
    assert [p["metadata"]["uid"] for p in pods(low, "train")] == [pod["metadata"]["uid"]], "two pods train"
    low.end("train", exit_code=75, message="A checkpoint is saved.", checkpoint_step=30)
    low.let_go(pod)
    eventually(lambda: [p["metadata"]["uid"] for p in pods(low, "train")] != [pod["metadata"]["uid"]], "a new pod")
    low.end("train")
    eventually(lambda: stage_status(low, "train")["state"] == "Succeeded", "train succeeds")
    assert stage_status(low, "train")["countedFailures"] == 0


def test_a_job_that_its_user_suspends_gives_its_quota_back_and_queues_again(
    operator: OperatorProcess, team: Team
) -> None:
    first, second = team.job("first"), team.job("second")
    first.end("prepare")
    pod = first.run("train")
    first.bind(pod)
    second.end("prepare")
    waits(second, GPU)
    first.kubectl("patch", "finetunejob", "first", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    eventually(lambda: "deletionTimestamp" in pods(first, "train")[0]["metadata"], "the pod is being stopped")
    first.end("train", exit_code=75, message="A checkpoint is saved.", checkpoint_step=30)
    first.let_go(pod)
    second.run("train")
    first.wait_for("Suspended")
    first.kubectl("patch", "finetunejob", "first", "--type=merge", "-p", '{"spec": {"suspend": false}}')
    waits(first, GPU)
    second.end("train")
    first.end("train", attempt=1)
    eventually(lambda: stage_status(first, "train")["state"] == "Succeeded", "train succeeds")
    assert stage_status(first, "train")["countedFailures"] == 0


def test_a_queue_that_does_not_exist_is_named(operator: OperatorProcess, team: Team) -> None:
    lost = team.job("lost", stageQueueNames={"prepare": "nowhere"})
    waits(lost, "LocalQueue nowhere doesn't exist")
    assert pods(lost, "prepare") == []


def test_an_operator_that_was_away_finds_the_job_as_kueue_left_it(operator: OperatorProcess, team: Team) -> None:
    low, high, pod = preempted(team)
    operator.kill()
    low.end("train", exit_code=75, message="A checkpoint is saved.", checkpoint_step=30)
    low.let_go(pod)
    high.end("train")
    eventually(lambda: pods(low, "train"), "a new pod")
    low.end("train")
    operator.start()
    low.end("export")
    low.wait_for("Succeeded")
    assert stage_status(low, "train")["attempt"] == 0


def test_a_job_of_two_nodes_waits_as_a_whole_until_there_is_quota_for_both(
    operator: OperatorProcess, kueue: Kueue, control_plane: ControlPlane
) -> None:
    control_plane.kubectl("create", "namespace", "two-nodes")
    kueue.queues("two-nodes", gpu={**CPU_ONLY, GPU: "2"}, cpu=CPU_ONLY)
    scheduling = {"kueue": {"queueName": "gpu", "stageQueueNames": {"prepare": "cpu", "export": "cpu"}}}
    one, two = (World(control_plane, "two-nodes", name) for name in ("one", "two"))
    one.apply(scheduling=scheduling)
    one.end("prepare")
    one.run("train")
    two.apply(scheduling=scheduling, compute={"nodes": 2})
    two.end("prepare")
    waits(two, GPU)
    assert pods(two, "train") == []
    one.end("train")
    for index in (0, 1):
        two.run("train", index=index)
    eventually(lambda: "train is running" in two.condition("Ready")["message"], "both run")
    for index in (0, 1):
        two.end("train", index=index)
    eventually(lambda: stage_status(two, "train")["state"] == "Succeeded", "train succeeds")
