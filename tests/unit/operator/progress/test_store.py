from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.progress import Progress
from finetune_api.spec import STAGES
from finetune_api.status import FineTuneJobStatus
from finetune_operator.progress.store import Entry, ProgressStore, at_rest, attempt_order, duration, goes_back, shown

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = ("team", "coach")
LATER = "2026-01-01T01:00:00Z"


def report(**members: object) -> Progress:
    return Progress.model_validate({"stage": "train", "attempt": 0, "activity": "Training", **members})


@pytest.mark.parametrize(
    ("old", "new", "back"),
    [
        ({"step": 5}, {"step": 4}, True),
        ({"step": 5}, {"step": 5}, False),
        ({"step": 5}, {"step": 6}, False),
        ({"step": 5}, {"activity": "Saving"}, False),
        ({"sequence": 9, "step": 5}, {"sequence": 2, "activity": "Loading"}, True),
        ({"sequence": 9, "activity": "Saving"}, {"sequence": 8, "step": 5}, True),
        ({"sequence": 9, "step": 5}, {"sequence": 9, "step": 5}, False),
        ({"sequence": 9, "step": 5}, {"sequence": 10, "step": 4}, True),
        ({"sequence": 9, "step": 5}, {"step": 6}, False),
        ({"attempt": 0, "sequence": 9}, {"attempt": 1, "sequence": 1}, False),
        ({"attempt": 1, "step": 5}, {"attempt": 0, "step": 50}, True),
        ({"attempt": 0, "step": 50}, {"attempt": 1, "step": 5}, False),
        ({"podCreationTime": "2026-01-01T00:00:00Z", "sequence": 9}, {"podCreationTime": LATER, "sequence": 1}, False),
        ({"podCreationTime": LATER, "sequence": 1}, {"podCreationTime": "2026-01-01T00:00:00Z", "sequence": 9}, True),
        ({"attempt": 4}, {"stage": "export"}, False),
        ({"stage": "export"}, {"attempt": 4}, True),
    ],
)
def test_attempt_and_step_never_go_back(old: dict[str, object], new: dict[str, object], back: bool) -> None:
    assert goes_back(report(**new), report(**old)) is back


def status_of(state: str, attempt: int = 0) -> FineTuneJobStatus:
    return FineTuneJobStatus.model_validate({"stages": [{"name": "train", "state": state, "attempt": attempt}]})


def test_a_report_of_the_running_attempt_is_left_as_it_is() -> None:
    assert at_rest(report(step=5), status_of("Running")) == report(step=5)


@pytest.mark.parametrize(
    "status",
    [status_of("Succeeded"), status_of("Failed"), status_of("Pending", 1), status_of("Running", 1)],
    ids=["succeeded", "failed", "waits", "next-attempt"],
)
def test_a_report_of_what_has_ended_tells_only_what_was_reached(status: FineTuneJobStatus) -> None:
    found = at_rest(shown(report(step=60, totalSteps=60, loss="0.83", etaSeconds=3), None, NOW), status)
    assert (found.activity, found.eta, found.eta_seconds) == (None, None, None)
    assert (found.steps, found.loss) == ("60/60", "0.83")


def test_nothing_is_reported_as_going_on_while_the_pod_is_gone() -> None:
    queued = status_of("Running").model_copy(update={"phase": "Pending"})
    found = at_rest(report(step=5, etaSeconds=3), queued)
    assert (found.activity, found.eta_seconds, found.step) == (None, None, 5)


_REPORTS = st.builds(
    Progress,
    stage=st.sampled_from(STAGES),
    attempt=st.integers(0, 2),
    activity=st.sampled_from(["Loading", "Training"]),
    step=st.none() | st.integers(0, 5),
)


@given(st.lists(_REPORTS, max_size=30))
def test_what_the_store_knows_never_goes_back_in_whatever_order_reports_arrive(reports: list[Progress]) -> None:
    store = ProgressStore()
    seen: list[Progress] = []
    for item in reports:
        store.take(KEY, "u", item, 0.0)
        seen.append(store.entries[KEY].latest)
    assert [attempt_order(p) for p in seen] == sorted(attempt_order(p) for p in seen)


def test_a_new_job_of_the_same_name_starts_from_nothing() -> None:
    store = ProgressStore()
    store.take(KEY, "old", report(attempt=3, step=50), 0.0)
    entry = store.take(KEY, "new", report(step=1), 0.0)
    assert entry is not None
    assert entry.latest.step == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (42, "42s"), (250, "4m10s"), (3720, "1h02m"), (273_600, "3d04h")],
)
def test_durations_read_as_in_kubectl_tables(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_the_shown_report_has_steps_eta_and_time() -> None:
    progress = shown(report(step=37, total_steps=60, percent=61, eta_seconds=250), None, NOW)
    assert (progress.steps, progress.completed, progress.eta) == ("37/60", "37/60 61%", ">4m10s")
    assert progress.update_time == "2026-01-01T00:00:00Z"


def test_an_activity_without_steps_shows_those_of_its_stage_and_its_own_percentage() -> None:
    last = shown(report(step=27, total_steps=60, percent=45), None, NOW)
    found = shown(report(attempt=1, activity="Loading", percent=0), last, NOW)
    assert (found.completed, found.step) == ("27/60 0%", None)


def test_a_new_stage_does_not_show_the_steps_of_the_one_before() -> None:
    last = shown(report(step=60, total_steps=60, percent=100), None, NOW)
    assert shown(report(stage="export", activity="Merging", percent=5), last, NOW).completed == "5%"


def test_a_resumed_attempt_may_report_fewer_steps_than_were_shown() -> None:
    last = shown(report(step=34, total_steps=60, percent=56), None, NOW)
    loading = shown(report(attempt=1, activity="Loading", percent=0, sequence=1), last, NOW)
    assert not goes_back(report(attempt=1, step=27, total_steps=60, sequence=2), loading)


@pytest.mark.parametrize(
    ("checkpoint", "state", "reached"),
    [
        (None, "Pending", ("34/60", "34/60 56%")),
        (27, "Pending", ("27/60", "27/60 45%")),
        (27, "Succeeded", ("34/60", None)),
    ],
    ids=["no-checkpoint-reported", "resumes-from-a-checkpoint", "over"],
)
def test_a_stage_at_rest_shows_what_it_has_reached(
    checkpoint: int | None, state: str, reached: tuple[str, str | None]
) -> None:
    stage = {"name": "train", "state": state, "attempt": 1, "checkpointStep": checkpoint}
    last = shown(report(step=34, total_steps=60, percent=56), None, NOW)
    found = at_rest(last, FineTuneJobStatus.model_validate({"stages": [stage]}))
    assert (found.steps, found.completed) == reached


def test_a_report_that_is_at_rest_stays_as_it_is() -> None:
    rest = at_rest(shown(report(step=34, total_steps=60, percent=56), None, NOW), status_of("Failed"))
    assert at_rest(rest, FineTuneJobStatus()) == rest


def test_members_that_only_the_operator_fills_in_are_not_taken_from_a_push() -> None:
    progress = shown(report(steps="1/1", completed="1/1 100%", eta="now"), None, NOW)
    assert (progress.steps, progress.completed, progress.eta) == (None, None, None)


@pytest.mark.parametrize(
    ("written", "latest", "since", "due"),
    [
        (None, {"step": 7}, 0.0, 0.0),
        ({"step": 7, "activity": "Loading"}, {"step": 7}, 0.0, 0.0),
        ({"step": 0}, {"step": 1}, 0.0, 0.0),
        ({"step": 59, "total_steps": 60}, {"step": 60, "total_steps": 60}, 0.0, 0.0),
        ({"step": 7, "attempt": 0}, {"step": 7, "attempt": 1}, 0.0, 0.0),
        ({"step": 7}, {"step": 8}, 0.0, 3.0),
        ({"step": 7}, {"step": 8}, -200.0, 28.0),
    ],
    ids=["first report", "activity", "first step", "last step", "attempt", "close watch", "later"],
)
def test_a_report_is_due(
    written: dict[str, object] | None, latest: dict[str, object], since: float, due: float
) -> None:
    old = report(**written) if written else None
    assert Entry("u", report(**latest), since, old, written_at=8.0).due_in(10.0) == due


def test_what_came_during_a_write_is_still_to_be_written() -> None:
    store = ProgressStore()
    writing = store.take(KEY, "u", report(step=1), 0.0)
    store.take(KEY, "u", report(step=2), 0.0)
    assert writing is not None
    present = store.wrote(KEY, writing, 1.0)
    assert present is not None
    assert not present.is_written
