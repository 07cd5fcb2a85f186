import pytest

from finetune_operator.cluster.client import FINETUNE_JOBS, JOBS, PODS
from finetune_operator.progress.auth import CACHE_SECONDS, Authenticator, Denied, Sender
from tests.unit.operator.fakes import LABELS, Clock, FakeKube, owner, review, running_train


@pytest.fixture
def kube() -> FakeKube:
    kube = FakeKube()
    running_train(kube)
    return kube


async def _status(kube: FakeKube, token: str = "good", namespace: str = "team", name: str = "coach") -> int:
    with pytest.raises(Denied) as denied:
        await Authenticator(kube).sender(token, namespace, name)
    return denied.value.status


async def test_the_pod_of_the_attempt_may_report(kube: FakeKube) -> None:
    sender = await Authenticator(kube).sender("good", "team", "coach")
    assert sender == Sender("team", "coach", "uid-of-coach", "train", "1", "2026-01-01T00:00:00Z")


async def test_a_token_that_the_api_server_does_not_know_is_unauthorized(kube: FakeKube) -> None:
    assert await _status(kube, token="forged") == 401


async def test_a_token_of_another_audience_is_unauthorized(kube: FakeKube) -> None:
    kube.reviews["api"] = {**review("coach-train-1-x"), "audiences": ["https://kubernetes.default.svc"]}
    assert await _status(kube, token="api") == 401


async def test_an_answer_without_audiences_is_no_proof(kube: FakeKube) -> None:
    kube.reviews["old"] = {k: v for k, v in review("coach-train-1-x").items() if k != "audiences"}
    assert await _status(kube, token="old") == 401


async def test_a_token_that_is_not_bound_to_a_pod_is_forbidden(kube: FakeKube) -> None:
    kube.reviews["loose"] = {**review("x"), "user": {"username": "system:serviceaccount:team:default"}}
    assert await _status(kube, token="loose") == 403


async def test_a_pod_may_not_report_on_another_job(kube: FakeKube) -> None:
    assert await _status(kube, name="other") == 403


async def test_a_pod_may_not_report_into_another_namespace(kube: FakeKube) -> None:
    assert await _status(kube, namespace="elsewhere") == 403


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_pod_that_has_ended_may_not_report(kube: FakeKube, phase: str) -> None:
    kube.objects["pods", "team", "coach-train-1-x"]["status"]["phase"] = phase
    assert await _status(kube) == 403


async def test_a_pod_that_was_replaced_may_not_report(kube: FakeKube) -> None:
    kube.objects["pods", "team", "coach-train-1-x"]["metadata"]["uid"] = "another"
    assert await _status(kube) == 403


async def test_the_right_labels_alone_do_not_make_a_pod_ours(kube: FakeKube) -> None:
    kube.put(PODS, {"metadata": {"namespace": "team", "name": "forged", "labels": LABELS}, "status": {}})
    kube.reviews["forged"] = review("forged")
    assert await _status(kube, token="forged") == 403


async def test_a_job_that_no_fine_tune_job_controls_is_a_stranger(kube: FakeKube) -> None:
    del kube.objects["jobs", "team", "coach-train-1"]["metadata"]["ownerReferences"]
    assert await _status(kube) == 403


async def test_a_pod_of_an_earlier_job_of_the_same_name_is_a_stranger(kube: FakeKube) -> None:
    kube.objects[FINETUNE_JOBS.plural, "team", "coach"]["metadata"]["uid"] = "recreated"
    assert await _status(kube) == 403


async def test_a_pod_may_not_call_itself_another_attempt_than_its_job(kube: FakeKube) -> None:
    labels = {**LABELS, "finetune.dev/attempt": "2"}
    kube.objects["pods", "team", "coach-train-1-x"]["metadata"]["labels"] = labels
    assert await _status(kube) == 403


async def test_a_job_that_is_gone_is_not_found(kube: FakeKube) -> None:
    del kube.objects[FINETUNE_JOBS.plural, "team", "coach"]
    assert await _status(kube) == 404


async def test_a_pod_without_a_controller_job_is_a_stranger(kube: FakeKube) -> None:
    pod = kube.objects["pods", "team", "coach-train-1-x"]
    pod["metadata"]["ownerReferences"] = [owner("ReplicaSet", "coach-train-1")]
    assert await _status(kube) == 403


async def test_a_proven_token_is_not_asked_about_again_within_a_minute(kube: FakeKube) -> None:
    clock = Clock()
    authenticator = Authenticator(kube, clock)
    await authenticator.sender("good", "team", "coach")
    kube.calls.clear()
    clock.now += CACHE_SECONDS - 1
    await authenticator.sender("good", "team", "coach")
    assert kube.calls == []


async def test_a_proven_token_is_asked_about_again_after_a_minute(kube: FakeKube) -> None:
    clock = Clock()
    authenticator = Authenticator(kube, clock)
    await authenticator.sender("good", "team", "coach")
    clock.now += CACHE_SECONDS
    kube.reviews.clear()
    with pytest.raises(Denied):
        await authenticator.sender("good", "team", "coach")


async def test_a_cached_token_still_counts_for_its_own_job_only(kube: FakeKube) -> None:
    authenticator = Authenticator(kube)
    await authenticator.sender("good", "team", "coach")
    with pytest.raises(Denied) as denied:
        await authenticator.sender("good", "team", "other")
    assert denied.value.status == 403


async def test_a_deleted_job_object_is_not_found(kube: FakeKube) -> None:
    del kube.objects[JOBS.plural, "team", "coach-train-1"]
    assert await _status(kube) == 404
