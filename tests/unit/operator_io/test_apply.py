from typing import Any

import pytest

from finetune_operator.apply import FIELD_MANAGER, NameTaken, Refused, apply
from finetune_operator.decision import (
    CreateConfigMap,
    CreateJob,
    Decision,
    DeleteConfigMap,
    DeleteFineTuneJob,
    DeleteJob,
    EnsureService,
    KubernetesEvent,
    UpdateConfigMap,
)
from finetune_operator.errors import AlreadyExists, ApiError, Conflict
from finetune_operator.kube import CONFIG_MAPS, FINETUNE_JOBS, JOBS, SERVICES, Object
from tests.unit.operator_io.fakes import FakeKube, forbidden, owner


def _body(name: str = "coach-prepare-0", **metadata: Any) -> Object:
    owners = [owner("FineTuneJob", "coach")]
    return {"metadata": {"namespace": "team", "name": name, "ownerReferences": owners, **metadata}}


EVENT = KubernetesEvent("Normal", "Accepted", "The job is accepted.")
EVERYTHING = Decision(
    actions=(CreateConfigMap(_body("plan")), CreateJob(_body())), status={"phase": "Preparing"}, events=(EVENT,)
)


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def job(kube: FakeKube) -> Object:
    return kube.put(FINETUNE_JOBS, {"metadata": {"namespace": "team", "name": "coach"}})


def _writes(kube: FakeKube) -> list[tuple[str, str]]:
    return [(verb, plural) for verb, plural, _ in kube.calls if verb not in ("get", "list")]


async def test_actions_come_before_the_status_and_events_after_it(kube: FakeKube, job: Object) -> None:
    await apply(kube, job, EVERYTHING)
    assert _writes(kube) == [
        ("create", "configmaps"),
        ("create", "jobs"),
        ("apply_status", "finetunejobs"),
        ("create", "events"),
    ]


async def test_the_status_is_written_once_by_the_operator_s_manager(kube: FakeKube, job: Object) -> None:
    await apply(kube, job, EVERYTHING)
    assert [name for verb, _, name in kube.calls if verb == "apply_status"] == [FIELD_MANAGER]


async def test_an_unchanged_status_is_not_written(kube: FakeKube, job: Object) -> None:
    await apply(kube, job, Decision())
    assert _writes(kube) == []


WITH_SERVICE = Decision(actions=(EnsureService(_body("train-coach")), CreateJob(_body())))


async def test_a_service_comes_before_the_job_that_needs_it(kube: FakeKube, job: Object) -> None:
    await apply(kube, job, WITH_SERVICE)
    assert _writes(kube) == [("create", "services"), ("create", "jobs")]


async def test_a_service_of_ours_that_is_there_already_is_what_is_wanted(kube: FakeKube, job: Object) -> None:
    kube.put(SERVICES, _body("train-coach"))
    await apply(kube, job, WITH_SERVICE)
    assert ("create", "jobs") in _writes(kube)


async def test_a_service_of_somebody_else_keeps_the_job_from_being_created(kube: FakeKube, job: Object) -> None:
    kube.put(SERVICES, _body("train-coach", ownerReferences=[]))
    with pytest.raises(NameTaken, match="services/train-coach exists and does not belong"):
        await apply(kube, job, WITH_SERVICE)
    assert ("create", "jobs") not in _writes(kube)


async def test_a_child_of_ours_that_is_there_already_ends_the_pass(kube: FakeKube, job: Object) -> None:
    kube.put(JOBS, _body())
    with pytest.raises(AlreadyExists):
        await apply(kube, job, EVERYTHING)
    assert ("apply_status", "finetunejobs") not in _writes(kube)


async def test_a_child_s_name_that_someone_else_took_is_named(kube: FakeKube, job: Object) -> None:
    kube.put(JOBS, _body(ownerReferences=[owner("CronJob", "nightly")]))
    with pytest.raises(NameTaken, match="jobs/coach-prepare-0 exists"):
        await apply(kube, job, EVERYTHING)


async def test_a_forbidden_child_is_told_in_the_api_server_s_words(kube: FakeKube, job: Object) -> None:
    kube.refuse["create", "jobs"] = forbidden("exceeded quota: gpus")
    with pytest.raises(Refused, match=r"^exceeded quota: gpus$"):
        await apply(kube, job, EVERYTHING)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, 'admission webhook "guard.corp" denied the request: no team label'),
        (422, 'Job.batch "x" is invalid: spec.template'),
        (500, 'Internal error occurred: failed calling webhook "guard.corp": connection refused'),
    ],
)
async def test_a_webhook_s_refusal_is_told_whatever_its_code(
    kube: FakeKube, job: Object, status: int, message: str
) -> None:
    kube.refuse["create", "jobs"] = ApiError(status, "Refused", message)
    with pytest.raises(Refused) as refused:
        await apply(kube, job, EVERYTHING)
    assert str(refused.value) == message


async def test_an_api_server_in_trouble_is_no_refusal(kube: FakeKube, job: Object) -> None:
    kube.refuse["create", "jobs"] = ApiError(500, "InternalError", "etcdserver: leader changed")
    with pytest.raises(ApiError):
        await apply(kube, job, EVERYTHING)


async def test_a_job_that_has_changed_since_is_not_written(kube: FakeKube, job: Object) -> None:
    kube.put(FINETUNE_JOBS, {"metadata": {"namespace": "team", "name": "coach"}})
    with pytest.raises(Conflict):
        await apply(kube, job, EVERYTHING)


async def test_nothing_is_told_of_a_status_that_was_not_written(kube: FakeKube, job: Object) -> None:
    kube.refuse["apply_status", "finetunejobs"] = Conflict(409, "Conflict", "changed")
    with pytest.raises(Conflict):
        await apply(kube, job, EVERYTHING)
    assert ("create", "events") not in _writes(kube)


async def test_a_lost_event_does_not_fail_the_pass(kube: FakeKube, job: Object) -> None:
    kube.refuse["create", "events"] = forbidden()
    await apply(kube, job, EVERYTHING)
    assert kube.objects["finetunejobs", "team", "coach"]["status"] == {"phase": "Preparing"}


async def test_a_config_map_is_updated_only_as_it_was_observed(kube: FakeKube, job: Object) -> None:
    kube.put(CONFIG_MAPS, _body("ca"))
    with pytest.raises(Conflict):
        await apply(kube, job, Decision(actions=(UpdateConfigMap(_body("ca", resourceVersion="0")),)))


async def test_a_job_is_deleted_before_the_status_is_written(kube: FakeKube, job: Object) -> None:
    found = kube.put(JOBS, _body())
    await apply(kube, job, Decision(actions=(DeleteJob.of(found),), status={}))
    assert _writes(kube) == [("delete", "jobs"), ("apply_status", "finetunejobs")]
    assert kube.propagated == ["Foreground"]


async def test_a_finished_job_goes_at_once_and_its_children_after_it(kube: FakeKube, job: Object) -> None:
    await apply(kube, job, Decision(actions=(DeleteFineTuneJob.of(job),)))
    assert _writes(kube) == [("delete", "finetunejobs")]
    assert kube.propagated == ["Background"]


async def test_a_config_map_is_deleted(kube: FakeKube, job: Object) -> None:
    found = kube.put(CONFIG_MAPS, _body("plan"))
    await apply(kube, job, Decision(actions=(DeleteConfigMap.of(found),)))
    assert _writes(kube) == [("delete", "configmaps")]


async def test_a_job_that_is_gone_needs_no_deleting(kube: FakeKube, job: Object) -> None:
    await apply(kube, job, Decision(actions=(DeleteJob("coach-prepare-0", "u", "1"),), status={}))
    assert _writes(kube)[-1] == ("apply_status", "finetunejobs")


async def test_a_job_that_has_moved_on_is_not_deleted(kube: FakeKube, job: Object) -> None:
    found = kube.put(JOBS, _body())["metadata"]
    with pytest.raises(Conflict):
        await apply(kube, job, Decision(actions=(DeleteJob(found["name"], found["uid"], "0"),), status={}))
    assert ("apply_status", "finetunejobs") not in _writes(kube)


async def test_an_event_is_about_this_very_job(kube: FakeKube, job: Object) -> None:
    await apply(kube, job, EVERYTHING)
    event = next(body for (plural, _, _), body in kube.objects.items() if plural == "events")
    assert (event["involvedObject"]["uid"], event["reason"]) == (job["metadata"]["uid"], "Accepted")


async def test_a_long_event_is_cut_to_what_the_api_server_takes(kube: FakeKube, job: Object) -> None:
    await apply(kube, job, Decision(status={}, events=(KubernetesEvent("Warning", "Failed", "x" * 5000),)))
    event = next(body for (plural, _, _), body in kube.objects.items() if plural == "events")
    assert len(event["message"]) == 1024
