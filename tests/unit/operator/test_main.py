import math
import tomllib
from pathlib import Path
from typing import Any

import pytest

import finetune_operator
from finetune_api.progress import Progress
from finetune_operator import main
from finetune_operator.cluster.client import FINETUNE_JOBS, NAMESPACES, SECRETS
from finetune_operator.cluster.errors import ApiError, KubeError, LeadershipLost, Unreachable
from finetune_operator.control.leadership import boot_seconds
from finetune_operator.control.lease import RENEW_DEADLINE_SECONDS
from finetune_operator.main import Operator, retry
from finetune_operator.options import parse
from finetune_operator.progress import writer as progress_writer
from tests.unit.operator.fakes import FakeKube, running_train

FINISHED = {
    "observedGeneration": 1,
    "phase": "Succeeded",
    "conditions": [{"type": "Finished", "status": "True"}],
}


def _operator(kube: FakeKube, *arguments: str) -> Operator:
    pod = {"POD_NAMESPACE": "sys", "POD_NAME": "operator-0"}
    return Operator(parse(["--trainer-image", "trainer:1", *arguments], pod), kube)


def _put(kube: FakeKube, name: str, namespace: str = "team", **members: Any) -> None:
    kube.put(
        FINETUNE_JOBS, {"metadata": {"namespace": namespace, "name": name, "generation": 1}, "spec": {}, **members}
    )


async def _leading(operator: Operator) -> Operator:
    await operator._leadership._round()
    return operator


async def _due(operator: Operator) -> int:
    before = len(operator._jobs)
    await operator._full_list()
    return len(operator._jobs) - before


async def test_a_full_list_makes_jobs_due_that_have_not_ended_and_counts_the_others() -> None:
    kube = FakeKube()
    _put(kube, "a")
    _put(kube, "b", status=FINISHED)
    operator = await _leading(_operator(kube))
    assert await _due(operator) == 1
    assert operator._metrics.known() == {("team", "b")}


async def test_every_full_list_makes_them_due_again() -> None:
    kube = FakeKube()
    _put(kube, "a")
    operator = await _leading(_operator(kube))
    await _due(operator)
    assert operator._jobs._schedule.take(float("inf")) == ("team", "a")
    operator._jobs._schedule.finish(("team", "a"), 0.0, failed=False)
    assert await _due(operator) == 1


async def test_one_that_waits_for_its_deletion_is_due_with_the_first_full_list_only() -> None:
    kube = FakeKube()
    _put(kube, "a", status=FINISHED, spec={"ttlSecondsAfterFinished": 3600})
    operator = await _leading(_operator(kube))
    assert await _due(operator) == 1
    operator._jobs._schedule.take(float("inf"))
    operator._jobs._schedule.finish(("team", "a"), 0.0, failed=False)
    operator._metrics.phase(("team", "a"), "Succeeded")  # as its pass does
    assert await _due(operator) == 0


async def test_a_job_whose_deletion_no_watch_reported_is_due() -> None:
    operator = await _leading(_operator(FakeKube()))
    operator._metrics.phase(("team", "gone"), "Training")
    assert await _due(operator) == 1


async def test_only_jobs_of_the_watched_namespaces_are_listed() -> None:
    kube = FakeKube()
    for namespace in ("team", "other", "third"):
        _put(kube, "a", namespace)
    operator = await _leading(_operator(kube, "--watch-namespace", "team", "--watch-namespace", "third"))
    assert await _due(operator) == 2


async def test_a_new_leader_looks_at_unfinished_jobs_first() -> None:
    kube = FakeKube()
    _put(kube, "a", status=FINISHED)
    _put(kube, "b")
    operator = await _leading(_operator(kube))
    await operator._full_list()
    assert operator._jobs._schedule.take(math.inf) == ("team", "b")


async def test_on_a_standby_nothing_is_due_whatever_it_hears_of() -> None:
    kube = FakeKube()
    _put(kube, "a")
    await _leading(_operator(kube))
    standby = _operator(kube)
    await standby._leadership._round()
    standby._event_filter.of_job(("team", "a"), None)
    assert await _due(standby) == 0


async def test_a_standby_forgets_the_reports_of_jobs_that_have_ended() -> None:
    kube = FakeKube()
    _put(kube, "a")
    _put(kube, "b", status=FINISHED)
    standby = _operator(kube)
    for name in ("a", "b", "gone"):
        report = Progress(stage="train", attempt=0, activity="Training")
        standby._store.take(("team", name), "u", report, 0.0)
    await standby._full_list()
    assert list(standby._store.entries) == [("team", "a")]


async def test_who_lost_the_lead_changes_nothing_but_progress() -> None:
    kube = FakeKube()
    running_train(kube)
    operator = await _leading(_operator(kube))
    operator._leadership._clock = lambda: boot_seconds() + RENEW_DEADLINE_SECONDS
    kube.calls.clear()
    with pytest.raises(LeadershipLost):
        await operator._jobs._handler(("team", "coach"))
    report = Progress(stage="train", attempt=1, activity="Training")
    operator._store.take(("team", "coach"), "uid-of-coach", report, 0.0)
    await operator._progress._handler(("team", "coach"))
    changes = [call for call in kube.calls if call[0] not in ("get", "list")]
    assert changes == [("apply_status", "finetunejobs", progress_writer.FIELD_MANAGER)]


async def test_only_the_leader_fills_the_tls_secret() -> None:
    kube = FakeKube()
    kube.put(SECRETS, {"metadata": {"namespace": "sys", "name": "finetune-operator-tls"}})
    leader, standby = await _leading(_operator(kube)), _operator(kube)
    with pytest.raises(KubeError):
        await standby._certificate.refresh()
    await leader._certificate.refresh()
    await standby._certificate.refresh()
    assert standby._settings().ca_pem == leader._settings().ca_pem != ""


async def test_an_outage_at_the_start_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Exception | str] = [Unreachable("down"), Unreachable("down"), "done"]

    async def attempt() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(main, "backoff_seconds", lambda failures: 0.001)
    assert await retry("start", attempt) == "done"


def test_the_version_is_the_distribution_s() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert finetune_operator.__version__ == project["version"]


async def test_jobs_are_told_of_their_neighbours_once_the_cluster_is_known() -> None:
    kube = FakeKube()
    kube.put(NAMESPACES, {"metadata": {"name": "kube-system", "uid": "cluster"}})
    _put(kube, "a")
    operator = _operator(kube)
    await operator._full_list()
    full_list = operator._settings().full_list
    assert full_list is not None
    neighbours = full_list.of("team")
    assert neighbours is not None
    assert (neighbours.cluster_id, len(neighbours.kept)) == ("cluster", 1)


async def test_without_the_right_to_identify_the_cluster_nothing_is_cleaned_up() -> None:
    kube = FakeKube()
    kube.refuse["get", "namespaces"] = ApiError(403, "Forbidden", "no")
    operator = _operator(kube)
    await operator._full_list()
    assert operator._settings().full_list is None
