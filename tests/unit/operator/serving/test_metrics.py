import itertools
from typing import Any

from finetune_api.progress import Progress
from finetune_api.status import FineTuneJobStatus
from finetune_operator.serving.metrics import Metrics

KEY = ("team", "coach")


def _status(**train: Any) -> FineTuneJobStatus:
    stage = {"name": "train", "state": "Running", "attempt": 0, "startTime": "2026-11-24T10:00:00Z", **train}
    return FineTuneJobStatus.model_validate({"stages": [stage]})


def _failure(reason: str) -> dict[str, str]:
    return {"reason": reason, "message": "."}


def test_a_stage_s_duration_is_counted_when_it_ends() -> None:
    metrics = Metrics()
    done = _status(state="Succeeded", completionTime="2026-11-24T10:01:30Z")
    metrics.transition("team", _status(), done)
    metrics.transition("team", done, done)
    labels = {"stage": "train", "state": "Succeeded"}
    assert metrics.registry.get_sample_value("finetune_stage_duration_seconds_sum", labels) == 90


def test_each_failed_attempt_is_counted_once_by_its_reason() -> None:
    metrics = Metrics()
    crashed = {"lastFailure": _failure("Crashed"), "completionTime": "2026-11-24T10:01:30Z"}
    life = [
        _status(),
        _status(attempt=1, state="Pending", **crashed),
        _status(attempt=1, **crashed),
        _status(attempt=1, **crashed, jobName="j"),
        _status(attempt=1, state="Failed", **crashed),
    ]
    for old, new in itertools.pairwise(life):
        metrics.transition("team", old, new)
    labels = {"stage": "train", "reason": "Crashed"}
    assert metrics.registry.get_sample_value("finetune_attempt_failures_total", labels) == 2


def test_an_attempt_that_was_suspended_did_not_fail() -> None:
    metrics = Metrics()
    crashed_before = {"lastFailure": _failure("Crashed")}
    metrics.transition(
        "team", _status(attempt=1, **crashed_before), _status(attempt=2, state="Pending", **crashed_before)
    )
    labels = {"stage": "train", "reason": "Crashed"}
    assert metrics.registry.get_sample_value("finetune_attempt_failures_total", labels) is None


def test_gpu_seconds_add_up_by_namespace() -> None:
    metrics = Metrics()
    metrics.transition("team", FineTuneJobStatus(), FineTuneJobStatus(gpu_seconds=40))
    metrics.transition("team", FineTuneJobStatus(gpu_seconds=40), FineTuneJobStatus(gpu_seconds=100))
    assert metrics.registry.get_sample_value("finetune_gpu_seconds_total", {"namespace": "team"}) == 100


def test_the_series_of_a_job_end_with_it() -> None:
    metrics = Metrics()
    metrics.progress(KEY, Progress(stage="train", attempt=0, activity="Training", step=3, loss="0.83"))
    metrics.drop_live(KEY)
    metrics.drop_live(KEY)
    assert b'name="coach"' not in metrics.render()


def test_who_leads_and_the_queue_and_the_watches_are_read_when_scraped() -> None:
    metrics = Metrics()
    depth = [0]
    metrics.watch(lambda: True, lambda: depth[0], lambda: 7.5)
    depth[0] = 3
    assert (
        metrics.registry.get_sample_value("finetune_leader"),
        metrics.registry.get_sample_value("finetune_queue_depth"),
        metrics.registry.get_sample_value("finetune_watch_age_seconds"),
    ) == (1.0, 3.0, 7.5)
