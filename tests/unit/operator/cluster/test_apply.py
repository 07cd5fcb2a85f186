from typing import Any

import pytest

from finetune_operator.cluster.apply import NameTaken, Refused, carry_out, emit
from finetune_operator.cluster.client import CONFIG_MAPS, FINETUNE_JOBS, JOBS, SERVICES, Object
from finetune_operator.cluster.errors import AlreadyExists, ApiError, Conflict
from finetune_operator.decide.decision import (
    CreateConfigMap,
    CreateJob,
    DeleteConfigMap,
    DeleteFineTuneJob,
    DeleteJob,
    EnsureService,
    KubernetesEvent,
    UpdateConfigMap,
)
from tests.unit.operator.fakes import FakeKube, forbidden, owner


def _body(name: str = "coach-prepare-0", **metadata: Any) -> Object:
    owners = [owner("FineTuneJob", "coach")]
    return {"metadata": {"namespace": "team", "name": name, "ownerReferences": owners, **metadata}}


EVENT = KubernetesEvent("Normal", "Accepted", "The job is accepted.")
START = (CreateConfigMap(_body("plan")), CreateJob(_body()))


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def job(kube: FakeKube) -> Object:
    return kube.put(FINETUNE_JOBS, {"metadata": {"namespace": "team", "name": "coach"}})


def _writes(kube: FakeKube) -> list[tuple[str, str]]:
    return [(verb, plural) for verb, plural, _ in kube.calls if verb not in ("get", "list")]


async def test_what_was_created_is_returned_as_it_is_now(kube: FakeKube, job: Object) -> None:
    answers = await carry_out(kube, job, START)
    assert [(a["metadata"]["name"], a["metadata"]["uid"]) for a in answers] == [
        ("plan", "uid-of-plan"),
        ("coach-prepare-0", "uid-of-coach-prepare-0"),
    ]


WITH_SERVICE = (EnsureService(_body("train-coach")), CreateJob(_body()))


async def test_a_service_comes_before_the_job_that_needs_it(kube: FakeKube, job: Object) -> None:
    await carry_out(kube, job, WITH_SERVICE)
    assert _writes(kube) == [("create", "services"), ("create", "jobs")]


async def test_a_service_of_ours_that_is_there_already_is_what_is_wanted(kube: FakeKube, job: Object) -> None:
    kube.put(SERVICES, _body("train-coach"))
    await carry_out(kube, job, WITH_SERVICE)
    assert ("create", "jobs") in _writes(kube)


async def test_a_service_of_somebody_else_keeps_the_job_from_being_created(kube: FakeKube, job: Object) -> None:
    kube.put(SERVICES, _body("train-coach", ownerReferences=[]))
    with pytest.raises(NameTaken, match="services/train-coach exists and does not belong"):
        await carry_out(kube, job, WITH_SERVICE)
    assert ("create", "jobs") not in _writes(kube)


async def test_a_child_of_ours_that_is_there_already_ends_the_pass(kube: FakeKube, job: Object) -> None:
    kube.put(JOBS, _body())
    with pytest.raises(AlreadyExists):
        await carry_out(kube, job, START)


async def test_a_child_s_name_that_someone_else_took_is_named(kube: FakeKube, job: Object) -> None:
    kube.put(JOBS, _body(ownerReferences=[owner("CronJob", "nightly")]))
    with pytest.raises(NameTaken, match="jobs/coach-prepare-0 exists"):
        await carry_out(kube, job, START)


async def test_a_forbidden_child_is_reported_in_the_api_server_s_words(kube: FakeKube, job: Object) -> None:
    kube.refuse["create", "jobs"] = forbidden("exceeded quota: gpus")
    with pytest.raises(Refused, match=r"^exceeded quota: gpus$"):
        await carry_out(kube, job, START)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, 'admission webhook "guard.corp" denied the request: no team label'),
        (422, 'Job.batch "x" is invalid: spec.template'),
        (500, 'Internal error occurred: failed calling webhook "guard.corp": connection refused'),
    ],
)
async def test_a_webhook_s_refusal_is_reported_whatever_its_code(
    kube: FakeKube, job: Object, status: int, message: str
) -> None:
    kube.refuse["create", "jobs"] = ApiError(status, "Refused", message)
    with pytest.raises(Refused) as refused:
        await carry_out(kube, job, START)
    assert str(refused.value) == message


async def test_an_api_server_in_trouble_is_no_refusal(kube: FakeKube, job: Object) -> None:
    kube.refuse["create", "jobs"] = ApiError(500, "InternalError", "etcdserver: leader changed")
    with pytest.raises(ApiError):
        await carry_out(kube, job, START)


async def test_a_lost_event_does_not_fail_the_pass(kube: FakeKube, job: Object) -> None:
    kube.refuse["create", "events"] = forbidden()
    await emit(kube, job, [EVENT])
    assert _writes(kube) == [("create", "events")]


async def test_a_config_map_is_updated_only_as_it_was_observed(kube: FakeKube, job: Object) -> None:
    kube.put(CONFIG_MAPS, _body("ca"))
    with pytest.raises(Conflict):
        await carry_out(kube, job, [UpdateConfigMap(_body("ca", resourceVersion="0"))])


async def test_a_job_is_gone_only_after_its_pods(kube: FakeKube, job: Object) -> None:
    found = kube.put(JOBS, _body())
    await carry_out(kube, job, [DeleteJob.of(found)])
    assert _writes(kube) == [("delete", "jobs")]
    assert kube.propagated == ["Foreground"]


async def test_a_finished_job_goes_at_once_and_its_children_after_it(kube: FakeKube, job: Object) -> None:
    await carry_out(kube, job, [DeleteFineTuneJob.of(job)])
    assert _writes(kube) == [("delete", "finetunejobs")]
    assert kube.propagated == ["Background"]


async def test_a_config_map_is_deleted(kube: FakeKube, job: Object) -> None:
    found = kube.put(CONFIG_MAPS, _body("plan"))
    await carry_out(kube, job, [DeleteConfigMap.of(found)])
    assert _writes(kube) == [("delete", "configmaps")]


async def test_a_job_that_is_gone_needs_no_deleting(kube: FakeKube, job: Object) -> None:
    assert await carry_out(kube, job, [DeleteJob("coach-prepare-0", "u", "1")]) == []


async def test_a_job_that_has_moved_on_is_not_deleted(kube: FakeKube, job: Object) -> None:
    found = kube.put(JOBS, _body())["metadata"]
    with pytest.raises(Conflict):
        await carry_out(kube, job, [DeleteJob(found["name"], found["uid"], "0")])


async def test_an_event_is_about_this_very_job(kube: FakeKube, job: Object) -> None:
    await emit(kube, job, [EVENT])
    event = next(body for (plural, _, _), body in kube.objects.items() if plural == "events")
    assert (event["involvedObject"]["uid"], event["reason"]) == (job["metadata"]["uid"], "Accepted")


async def test_a_long_event_is_cut_to_what_the_api_server_takes(kube: FakeKube, job: Object) -> None:
    await emit(kube, job, [KubernetesEvent("Warning", "Failed", "x" * 5000)])
    event = next(body for (plural, _, _), body in kube.objects.items() if plural == "events")
    assert len(event["message"]) == 1024
