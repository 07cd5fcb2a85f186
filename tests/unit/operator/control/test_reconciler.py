import asyncio
from typing import Any

import pytest

from finetune_operator import names
from finetune_operator.cluster.apply import FIELD_MANAGER
from finetune_operator.cluster.client import FINETUNE_JOBS, JOBS, PODS, WORKLOADS, Object, Resource
from finetune_operator.cluster.errors import ApiError, Conflict, NotFound, Unreachable
from finetune_operator.control import reconciler
from finetune_operator.control.reconciler import Key, Reconciler
from finetune_operator.decide.decision import CreateConfigMap, CreateJob, Decision, DeleteJob, KubernetesEvent
from finetune_operator.decide.observation import Observation
from finetune_operator.job_defaults import Settings
from finetune_operator.serving.metrics import Metrics
from tests.unit.operator.fakes import LABELS, FakeKube, forbidden

KEY = ("team", "coach")
ACCEPTED = {
    "snapshot": {"planVersion": 1, "planSha256": "a" * 64, "trainerImage": "t", "operatorVersion": "1"},
    "stages": [{"name": "prepare", "state": "Pending", "attempt": 0}],
}


def _finished() -> dict[str, Any]:
    condition = {"type": "Finished", "status": "True", "reason": "Done", "message": "", "lastTransitionTime": "x"}
    return {"phase": "Succeeded", "conditions": [condition]}


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kube = FakeKube()
        self.put(ACCEPTED)
        self.metrics = Metrics()
        self.ended: list[Key] = []
        self.expected: list[str] = []
        self.observed: list[Observation] = []
        self.decisions: list[Decision] = []
        monkeypatch.setattr(reconciler, "decide", self._decide)
        settings = Settings(trainer_image="t", operator_version="1", progress_url_base="u", ca_pem="p")
        self.reconciler = Reconciler(
            self.kube,
            lambda: settings,
            self.metrics,
            ended=self.ended.append,
            creates=lambda _, name: self.expected.append(name),
        )

    def _decide(self, observation: Observation, *_: object) -> Decision:
        self.observed.append(observation)
        return self.decisions.pop(0)

    def put(self, status: dict[str, Any], **spec: Any) -> None:
        metadata = {"namespace": "team", "name": "coach"}
        self.kube.put(FINETUNE_JOBS, {"metadata": metadata, "spec": spec, "status": status})

    def writes(self) -> list[tuple[str, str]]:
        return [(verb, plural) for verb, plural, _ in self.kube.calls if verb not in ("get", "list")]

    def jobs_in(self, phase: str) -> float | None:
        return self.metrics.registry.get_sample_value("finetune_jobs", {"namespace": "team", "phase": phase})


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def test_the_pods_are_listed_after_the_jobs_were_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answered: list[str] = []
    listed = world.kube.list

    async def slow_for_jobs(resource: Resource, namespace: str | None, **selector: str) -> list[Object]:
        if resource is JOBS:
            await asyncio.sleep(0.01)
        if resource is PODS:
            assert "jobs" in answered
        answered.append(resource.plural)
        return await listed(resource, namespace, **selector)

    monkeypatch.setattr(world.kube, "list", slow_for_jobs)
    world.decisions = [Decision()]
    await world.reconciler(KEY)
    assert "pods" in answered


async def test_the_children_are_listed_after_the_job_was_read(world: World) -> None:
    world.decisions = [Decision()]
    await world.reconciler(KEY)
    assert [plural for _, plural, _ in world.kube.calls] == ["finetunejobs", "jobs", "configmaps", "pods"]


async def test_only_children_of_this_name_are_seen(world: World) -> None:
    world.kube.put(JOBS, {"metadata": {"namespace": "team", "name": "a", "labels": LABELS}})
    world.kube.put(
        JOBS, {"metadata": {"namespace": "team", "name": "b", "labels": {**LABELS, "finetune.dev/job": "x"}}}
    )
    world.decisions = [Decision()]
    await world.reconciler(KEY)
    assert [job["metadata"]["name"] for job in world.observed[0].jobs] == ["a"]


WAITING = {
    "metadata": {
        "namespace": "team",
        "name": "a",
        "uid": "u-1",
        "labels": {**LABELS, names.JOB_UID_LABEL: "uid-of-coach"},
    },
    "spec": {"suspend": True},
}


async def test_the_queue_is_asked_about_a_job_that_waits(world: World) -> None:
    world.kube.put(JOBS, WAITING)
    for name in ("u-1", "u-2"):
        labels = {"kueue.x-k8s.io/job-uid": name}
        world.kube.put(WORKLOADS, {"metadata": {"namespace": "team", "name": name, "labels": labels}})
    world.decisions = [Decision()]
    await world.reconciler(KEY)
    assert [w["metadata"]["name"] for w in world.observed[0].workloads or ()] == ["u-1"]


@pytest.mark.parametrize("refusal", [forbidden(), NotFound(404, "NotFound", "no such kind")])
async def test_a_cluster_without_kueue_gives_no_answer(world: World, refusal: ApiError) -> None:
    world.kube.put(JOBS, WAITING)
    world.kube.refuse["list", "workloads"] = refusal
    world.decisions = [Decision()]
    await world.reconciler(KEY)
    assert world.observed[0].workloads is None


async def test_the_queue_is_not_asked_about_a_job_that_runs(world: World) -> None:
    world.kube.put(JOBS, WAITING | {"spec": {"suspend": False}})
    world.decisions = [Decision()]
    await world.reconciler(KEY)
    assert "workloads" not in [plural for _, plural, _ in world.kube.calls]


@pytest.mark.parametrize(
    "change",
    [
        {"stages": [{"name": "prepare", "state": "Succeeded", "attempt": 0}]},
        {"stages": [{"name": "prepare", "state": "Pending", "attempt": 1}]},
        {"conditions": _finished()["conditions"]},
    ],
    ids=["a stage has ended", "another attempt", "the end"],
)
async def test_a_written_status_is_acted_upon_in_the_same_pass(world: World, change: dict[str, Any]) -> None:
    world.decisions = [Decision(status=ACCEPTED | change), Decision(requeue_after=7.0)]
    assert await world.reconciler(KEY) == 7.0
    first, second = world.observed
    assert second == first.with_status(world.kube.objects["finetunejobs", *KEY])


@pytest.mark.parametrize(
    "change",
    [{"phase": "Preparing"}, {"stages": [{"name": "prepare", "state": "Running", "attempt": 0}]}],
    ids=["text", "a stage is seen running"],
)
async def test_a_status_that_lets_nothing_be_done_ends_the_pass(world: World, change: dict[str, Any]) -> None:
    world.decisions = [Decision(status=ACCEPTED | change, requeue_after=5.0)]
    assert await world.reconciler(KEY) == 5.0


async def test_what_a_deletion_leaves_behind_is_observed_at_once(world: World) -> None:
    ended = ACCEPTED | {"stages": [{"name": "prepare", "state": "Succeeded", "attempt": 0}]}
    world.decisions = [Decision(actions=(DeleteJob("coach-prepare-0", "u", "1"),), status=ended, requeue_after=5.0)]
    assert await world.reconciler(KEY) == 0.0
    assert world.writes() == [("delete", "jobs"), ("apply_status", "finetunejobs")]


async def test_nothing_is_written_after_a_job_that_has_moved_on_was_not_deleted(world: World) -> None:
    world.kube.refuse["delete", "jobs"] = Conflict(409, "Conflict", "changed")
    world.decisions = [Decision(actions=(DeleteJob("coach-prepare-0", "u", "1"),), status={"phase": "Pending"})]
    with pytest.raises(Conflict):
        await world.reconciler(KEY)
    assert world.writes() == [("delete", "jobs")]


async def test_the_pass_that_creates_a_job_sees_it_and_writes_one_status(world: World) -> None:
    event = KubernetesEvent("Normal", "StageStarted", "It started.")
    actions = (
        CreateConfigMap({"kind": "ConfigMap", "metadata": {"name": "plan", "labels": LABELS}}),
        CreateJob({"kind": "Job", "metadata": {"name": "coach-prepare-0", "labels": LABELS}}),
    )
    world.decisions = [
        Decision(actions=actions, status={"phase": "Pending"}),
        Decision(status={"phase": "Preparing"}, events=(event,)),
    ]
    await world.reconciler(KEY)
    assert world.writes() == [
        ("create", "configmaps"),
        ("create", "jobs"),
        ("apply_status", "finetunejobs"),
        ("create", "events"),
    ]
    observed = world.observed[1]
    assert [x["metadata"]["name"] for x in (*observed.config_maps, *observed.jobs)] == ["plan", "coach-prepare-0"]
    assert world.kube.objects["finetunejobs", *KEY]["status"]["phase"] == "Preparing"


async def test_a_job_is_announced_before_it_is_created(world: World) -> None:
    world.kube.refuse["create", "jobs"] = Unreachable("the answer was lost")
    world.decisions = [Decision(actions=(CreateJob({"metadata": {"name": "coach-prepare-0"}}),))]
    with pytest.raises(Unreachable):
        await world.reconciler(KEY)
    assert world.expected == ["coach-prepare-0"]


async def test_the_status_is_written_by_the_operator_s_manager(world: World) -> None:
    world.decisions = [Decision(status={"phase": "Pending"})]
    await world.reconciler(KEY)
    assert [name for verb, _, name in world.kube.calls if verb == "apply_status"] == [FIELD_MANAGER]


async def test_an_unchanged_status_is_not_written(world: World) -> None:
    world.decisions = [Decision()]
    await world.reconciler(KEY)
    assert world.writes() == []


EVENT = KubernetesEvent("Normal", "Accepted", "The job is accepted.")


async def test_nothing_is_reported_of_a_status_that_was_not_written(world: World) -> None:
    world.kube.refuse["apply_status", "finetunejobs"] = Conflict(409, "Conflict", "changed")
    world.decisions = [Decision(status={"phase": "Pending"}, events=(EVENT,))]
    with pytest.raises(Conflict):
        await world.reconciler(KEY)
    assert ("create", "events") not in world.writes()


async def test_what_was_written_is_reported_though_the_rest_of_the_pass_fails(world: World) -> None:
    world.put({})
    world.kube.refuse["create", "jobs"] = Unreachable("down")
    world.decisions = [
        Decision(status=ACCEPTED, events=(EVENT,)),
        Decision(actions=(CreateJob({"metadata": {"name": "coach-prepare-0"}}),)),
    ]
    with pytest.raises(Unreachable):
        await world.reconciler(KEY)
    assert world.writes()[-1] == ("create", "events")


async def test_a_pass_that_comes_to_no_end_begins_again(world: World) -> None:
    attempts = ({"stages": [{"name": "prepare", "state": "Pending", "attempt": n}]} for n in range(1, 100))
    world.decisions = [Decision(status=ACCEPTED | change, requeue_after=5.0) for change in attempts]
    assert await world.reconciler(KEY) == 0.0


async def test_the_wait_that_was_decided_is_asked_for(world: World) -> None:
    world.decisions = [Decision(requeue_after=5.0)]
    assert await world.reconciler(KEY) == 5.0


async def test_a_refused_child_is_decided_upon_in_the_same_pass(world: World) -> None:
    world.kube.refuse["create", "jobs"] = forbidden("exceeded quota")
    body = {"metadata": {"name": "coach-prepare-0"}}
    world.decisions = [Decision(actions=(CreateJob(body),)), Decision(status={"phase": "Pending"})]
    await world.reconciler(KEY)
    assert [o.refusal for o in world.observed] == [None, "exceeded quota"]
    assert world.kube.objects["finetunejobs", *KEY]["status"]["phase"] == "Pending"


async def test_a_stale_activity_is_taken_back_when_there_is_nothing_else_to_write(world: World) -> None:
    progress = {"stage": "export", "attempt": 0, "activity": "Uploading"}
    metadata = {"namespace": "team", "name": "coach"}
    world.kube.put(FINETUNE_JOBS, {"metadata": metadata, "spec": {}, "status": {"progress": progress}})
    world.decisions = [Decision(status={"phase": "Succeeded"}), Decision()]
    await world.reconciler(KEY)
    assert len(world.decisions) == 1
    assert world.kube.objects["finetunejobs", *KEY]["status"]["progress"] == progress
    await world.reconciler(KEY)
    assert world.kube.objects["finetunejobs", *KEY]["status"]["progress"] == {"stage": "export", "attempt": 0}


async def test_a_job_that_is_gone_is_forgotten(world: World) -> None:
    world.decisions = [Decision(status={"phase": "Pending"})]
    await world.reconciler(KEY)
    world.kube.objects.clear()
    assert await world.reconciler(KEY) is None
    assert (world.jobs_in("Pending"), world.ended) == (0.0, [KEY])


async def test_a_job_is_counted_in_the_phase_it_is_in(world: World) -> None:
    world.decisions = [Decision(status={"phase": "Pending"}), Decision(status={"phase": "Training"})]
    await world.reconciler(KEY)
    await world.reconciler(KEY)
    assert (world.jobs_in("Pending"), world.jobs_in("Training")) == (0.0, 1.0)


async def test_the_end_of_a_job_is_reported(world: World) -> None:
    world.decisions = [Decision(status=_finished()), Decision()]
    await world.reconciler(KEY)
    assert KEY in world.ended


async def test_the_latest_report_is_in_the_metrics_until_the_job_ends(world: World) -> None:
    progress = {"stage": "train", "attempt": 0, "activity": "Training", "loss": "0.83"}
    metadata = {"namespace": "team", "name": "coach"}
    world.kube.put(FINETUNE_JOBS, {"metadata": metadata, "spec": {}, "status": {"progress": progress}})
    world.decisions = [Decision(), Decision(status=_finished()), Decision()]
    labels = {"namespace": "team", "name": "coach"}
    await world.reconciler(KEY)
    assert world.metrics.registry.get_sample_value("finetune_job_loss", labels) == 0.83
    assert world.ended == []
    await world.reconciler(KEY)
    assert KEY in world.ended


async def test_a_status_of_a_newer_version_is_left_alone(world: World) -> None:
    metadata = {"namespace": "team", "name": "coach"}
    world.kube.put(FINETUNE_JOBS, {"metadata": metadata, "spec": {}, "status": {"phase": "Dreaming"}})
    assert await world.reconciler(KEY) is None
    assert world.observed == []


async def test_an_outage_ends_the_pass_for_the_queue_to_repeat(world: World) -> None:
    world.kube.refuse["list", "pods"] = Unreachable("down")
    with pytest.raises(Unreachable):
        await world.reconciler(KEY)
    assert world.metrics.registry.get_sample_value("finetune_reconcile_seconds_count", {"outcome": "error"}) == 1
