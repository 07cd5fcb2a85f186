from collections.abc import Iterator
from typing import Any

import pytest

from finetune_api.progress import ProgressStatus
from finetune_api.status import FineTuneJobStatus
from finetune_operator.control.event_filter import EventFilter, resting_phase
from finetune_operator.progress.store import at_rest
from tests.unit.operator.fakes import LABELS

KEY = ("team", "coach")
FINISHED = {"observedGeneration": 1, "phase": "Failed", "conditions": [{"type": "Finished", "status": "True"}]}
REPORT = {
    "stage": "train",
    "attempt": 0,
    "activity": "Training",
    "etaSeconds": 60,
    "step": 3,
    "updateTime": "2026-11-01T00:00:00Z",
}


def _job(status: dict[str, Any], generation: int = 1, **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": "team", "name": "coach", "uid": "u", "generation": generation}
    return {"metadata": metadata, "spec": spec, "status": status}


def _pod(uid: str = "p", **status: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "team", "name": uid, "uid": uid, "labels": LABELS}, "spec": {}, "status": status}


def _stage_job(*conditions: str, **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": "team", "name": "coach-train-0", "uid": "j", "labels": LABELS}
    reported = [{"type": c, "status": "True", "reason": "R"} for c in conditions]
    return {"metadata": metadata, "spec": {"template": {}, **spec}, "status": {"conditions": reported}}


class Taken(EventFilter):
    """EventFilter that counts what it makes of them."""

    def __init__(self) -> None:
        self.due = 0
        self.seconds = 0.0
        self.phases: list[str] = []
        self.reports: list[dict[str, Any]] = []
        super().__init__(
            self._count,
            lambda key, phase: self.phases.append(phase),
            lambda key, job: self.reports.append(job["status"]["progress"]),
        )

    def _count(self, key: tuple[str, str], seconds: float) -> None:
        assert key == KEY
        self.due += 1
        self.seconds = seconds

    def makes_due(
        self, job: dict[str, Any] | None = None, child: dict[str, Any] | None = None, gone: bool = False
    ) -> bool:
        before = self.due
        if child is not None:
            self.of_child(KEY, child, gone=gone)
        else:
            self.of_job(KEY, job)
        return self.due > before


def _listed(news: Taken, job: dict[str, Any]) -> bool:
    """Whether a full list that finds this makes it due."""
    before = news.due
    with news.full_list() as listed:
        listed(KEY, job)
    return news.due > before


@pytest.fixture
def news() -> Iterator[Taken]:
    return Taken()


def test_a_job_that_has_ended_is_counted_without_a_pass(news: Taken) -> None:
    assert not news.makes_due(_job(FINISHED))
    assert news.phases == ["Failed"]


@pytest.mark.parametrize(
    "job",
    [
        _job({}),
        _job(FINISHED, generation=2),
        _job(FINISHED, ttlSecondsAfterFinished=3600),
        _job({**FINISHED, "progress": REPORT}),
    ],
    ids=["not ended", "edited since", "to be deleted later", "its last report is of the present"],
)
def test_a_job_for_which_a_pass_would_do_something_is_due(news: Taken, job: dict[str, Any]) -> None:
    assert news.makes_due(job)


def test_a_job_whose_last_report_was_settled_is_at_rest() -> None:
    report = at_rest(ProgressStatus.model_validate(REPORT), FineTuneJobStatus())
    assert resting_phase(_job({**FINISHED, "progress": report.to_json()})) == "Failed"


def test_children_of_a_job_at_rest_make_nothing_due_until_it_is_edited(news: Taken) -> None:
    news.of_job(KEY, _job(FINISHED))
    assert not news.makes_due(child=_pod(phase="Succeeded"))
    assert not news.makes_due(child=_stage_job("Complete"), gone=True)
    assert news.makes_due(_job(FINISHED, generation=2))
    assert news.makes_due(child=_stage_job("Complete"))


@pytest.mark.parametrize("child", [_stage_job(), _pod(phase="Running")], ids=["Job", "pod"])
def test_a_live_child_of_a_job_at_rest_makes_it_due(news: Taken, child: dict[str, Any]) -> None:
    news.of_job(KEY, _job(FINISHED))
    assert news.makes_due(child=child)
    assert not news.makes_due(child=child, gone=True)


def test_a_job_of_the_same_name_is_due_after_one_at_rest_was_deleted(news: Taken) -> None:
    news.of_job(KEY, _job(FINISHED))
    assert news.makes_due(None)
    assert news.makes_due(_job({}))


def test_a_status_that_changes_is_passed_on_and_makes_nothing_due(news: Taken) -> None:
    assert news.makes_due(_job({}))
    assert not news.makes_due(_job({"phase": "Training", "progress": REPORT}))
    assert news.reports == [REPORT]
    assert news.makes_due(_job({"phase": "Training"}, generation=2))


def test_a_job_that_a_pass_creates_is_no_news_until_something_happens_to_it(news: Taken) -> None:
    news.of_job(KEY, _job({}))
    news.expect(KEY, "coach-train-0")
    assert not news.makes_due(child=_stage_job())
    assert news.makes_due(child=_stage_job("Failed"))


@pytest.mark.parametrize("phase", ["Running", "Succeeded", "Failed"])
def test_a_pass_that_would_only_tell_that_a_pod_runs_or_has_ended_waits_for_more(news: Taken, phase: str) -> None:
    news.of_child(KEY, _pod(phase=phase), gone=False)
    assert news.seconds > 1


def test_a_pod_that_is_being_deleted_is_looked_at_soon(news: Taken) -> None:
    pod = _pod(phase="Failed")
    pod["metadata"]["deletionTimestamp"] = "2026-11-01T00:00:00Z"
    news.of_child(KEY, pod, gone=False)
    assert news.seconds < 1


def test_only_the_job_that_a_pass_creates_is_no_news(news: Taken) -> None:
    news.of_job(KEY, _job({}))
    news.expect(KEY, "coach-train-1")
    assert news.makes_due(child=_stage_job())


def test_a_deletion_that_begins_makes_it_due(news: Taken) -> None:
    job = _job({})
    news.of_job(KEY, job)
    assert news.makes_due({**job, "metadata": {**job["metadata"], "deletionTimestamp": "2026-11-01T00:00:00Z"}})


def test_what_was_seen_counts_again_after_a_full_list(news: Taken) -> None:
    news.of_job(KEY, _job({}))
    news.of_child(KEY, _stage_job(), gone=False)
    assert _listed(news, _job({}))
    assert news.makes_due(child=_stage_job())


def test_a_pod_on_its_way_to_its_node_makes_nothing_due(news: Taken) -> None:
    scheduled = [{"type": "PodScheduled", "status": "True"}]
    creating = [{"name": "trainer", "state": {"waiting": {"reason": "ContainerCreating"}}}]
    assert not news.makes_due(child=_pod(phase="Pending"))
    assert not news.makes_due(child=_pod(phase="Pending", conditions=scheduled, containerStatuses=creating))


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Running"},
        {"phase": "Failed"},
        {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]},
        {"phase": "Running", "conditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
    ],
)
def test_a_pod_that_has_something_to_say_makes_its_job_due_once(news: Taken, status: dict[str, Any]) -> None:
    news.of_child(KEY, _pod(phase="Pending"), gone=False)
    assert news.makes_due(child=_pod(**status))
    assert not news.makes_due(child=_pod(**status))


def test_a_job_of_a_stage_makes_due_what_it_says_of_its_outcome(news: Taken) -> None:
    assert news.makes_due(child=_stage_job())
    assert not news.makes_due(child=_stage_job("SuccessCriteriaMet"))
    assert news.makes_due(child=_stage_job("SuccessCriteriaMet", "Complete"))
    assert news.makes_due(child=_stage_job("SuccessCriteriaMet", "Complete"), gone=True)


def test_a_queue_that_holds_or_admits_a_stage_makes_it_due(news: Taken) -> None:
    news.of_child(KEY, _stage_job(suspend=True), gone=False)
    assert news.makes_due(child=_stage_job(suspend=False))


def test_what_a_watch_lists_when_it_begins_again_is_news(news: Taken) -> None:
    news.of_job(KEY, _job({}))
    news.of_child(KEY, _stage_job(), gone=False)
    due = news.due
    news.of_job(KEY, _job({}), relisted=True)
    news.of_child(KEY, _stage_job(), gone=False, relisted=True)
    assert news.due == due + 2


def test_a_live_child_that_was_known_before_its_job_is_found_at_rest_makes_that_due(news: Taken) -> None:
    news.of_child(KEY, _stage_job(), gone=False)
    assert _listed(news, _job(FINISHED))
    news.of_child(KEY, _stage_job("Failed"), gone=False)
    assert not _listed(news, _job(FINISHED))


@pytest.mark.parametrize("newer", [_job({}, generation=2), None], ids=["edited", "deleted"])
def test_a_full_list_that_is_older_than_what_a_watch_reported_puts_nothing_to_rest(
    news: Taken, newer: dict[str, Any] | None
) -> None:
    with news.full_list() as listed:
        news.of_job(KEY, newer)
        due = news.due
        listed(KEY, _job(FINISHED))
    assert news.due == due + 1
    assert news.phases == []
    assert news.makes_due(child=_stage_job("Complete"))


def test_a_queue_that_takes_a_stage_back_and_admits_it_again_makes_it_due(news: Taken) -> None:
    held = {
        "type": "Suspended",
        "status": "False",
        "reason": "JobResumed",
        "lastTransitionTime": "2026-11-01T00:00:00Z",
    }
    job = _stage_job()
    news.of_child(KEY, {**job, "status": {"conditions": [held]}}, gone=False)
    again = {**held, "lastTransitionTime": "2026-11-01T00:01:00Z"}
    assert news.makes_due(child={**job, "status": {"conditions": [again]}})
