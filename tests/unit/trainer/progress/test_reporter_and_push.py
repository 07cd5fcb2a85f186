"""Progress on the terminal, in the log, and to the operator."""

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from finetune_api.progress import Progress
from finetune_trainer.progress.push import Endpoint, ProgressPush, post
from finetune_trainer.progress.reporter import ProgressReporter, bar
from tests.support.https_server import HTTPSServer


def _progress(**members: Any) -> Progress:
    return Progress(stage="train", attempt=0, **({"activity": "Training"} | members))


def test_a_log_gets_a_line_on_news_and_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    reporter = ProgressReporter("train", 0, clock=lambda: now)
    with caplog.at_level(logging.INFO, logger="finetune_trainer"):
        for step in range(1, 31):
            now = float(step)
            reporter.report("Training", step=step, total_steps=30, loss=1.5)
        reporter.report("Evaluating")
    assert caplog.messages == [
        "Training step 1/30, loss 1.5000",
        "Training step 11/30, loss 1.5000",
        "Training step 21/30, loss 1.5000",
        "Evaluating",
    ]


def test_a_terminal_gets_a_bar() -> None:
    progress = _progress(step=15, total_steps=60, loss="1.2345", tokens_per_second=310, eta_seconds=40)
    assert bar(progress) == ("[######..................] Training step 15/60, loss 1.2345, 310 tokens/s, 40 s left")


def test_reporting_never_raises() -> None:
    def broken(progress: Progress) -> None:
        raise OSError

    ProgressReporter("train", 0, send=broken).report("Training")


def test_numbers_that_are_none_are_left_out() -> None:
    sent: list[Progress] = []
    reporter = ProgressReporter("train", 0, send=sent.append)
    reporter.report("Training", step=3, loss=float("nan"), eta_seconds=float("inf"), percent=101)
    assert sent == [_progress(step=3, percent=100)]


def test_every_activity_has_a_percentage_that_lasts_until_the_next_one() -> None:
    sent: list[Progress] = []
    reporter = ProgressReporter("train", 0, send=sent.append)
    reporter.report("Downloading", percent=40)
    reporter.report("Downloading")
    reporter.report("Loading")
    assert [p.percent for p in sent] == [40, 40, 0]


def test_the_time_left_runs_on_while_the_result_is_judged_and_is_unknown_once_it_is_over() -> None:
    sent: list[Progress] = []
    now = 0.0
    reporter = ProgressReporter("train", 0, send=sent.append, clock=lambda: now)
    reporter.report("Training", eta_seconds=100)
    now = 60.0
    reporter.report("Evaluating")
    now = 101.0
    reporter.report("Saving")
    assert [p.eta_seconds for p in sent] == [100, 40, None]


def test_training_that_starts_again_does_not_keep_the_time_left() -> None:
    sent: list[Progress] = []
    reporter = ProgressReporter("train", 0, send=sent.append, clock=lambda: 0.0)
    reporter.report("Training", eta_seconds=100)
    reporter.report("Loading")
    reporter.report("Evaluating")
    assert [p.eta_seconds for p in sent] == [100, None, None]


def test_newest_progress_wins_and_the_last_is_never_lost() -> None:
    sent: list[Progress] = []
    push = ProgressPush(sent.append, every_seconds=3600)
    for step in range(2, 50):
        push.offer(_progress(step=step, total_steps=100))
    push.close()
    assert sent[-1].step == 49
    assert len(sent) <= 3


def test_a_new_activity_and_the_last_step_are_sent_at_once() -> None:
    sent: list[Progress] = []
    news = threading.Event()

    def send(progress: Progress) -> None:
        sent.append(progress)
        news.set()

    push = ProgressPush(send, every_seconds=3600)
    for progress in (_progress(activity="Loading"), _progress(step=1), _progress(step=9, total_steps=9)):
        news.clear()
        push.offer(progress)
        assert news.wait(60)
    push.close()
    assert [p.step for p in sent] == [None, 1, 9]


def test_what_is_sent_is_counted() -> None:
    sent: list[Progress] = []
    push = ProgressPush(sent.append, every_seconds=0)
    for step in range(50):
        push.offer(_progress(step=step))
        time.sleep(0.001)
    push.close()
    assert [p.sequence for p in sent] == [*range(1, len(sent) + 1)]


def test_what_is_looked_at_after_the_last_step_is_not_sent_row_by_row() -> None:
    sent: list[Progress] = []
    push = ProgressPush(sent.append, every_seconds=3600)
    for percent in range(101):
        push.offer(_progress(activity="Evaluating", step=9, total_steps=9, percent=percent))
        time.sleep(0.001)
    push.close()
    assert len(sent) <= 3


def test_a_slow_operator_holds_nothing_up() -> None:
    release = threading.Event()
    # It answers only when all is over.
    push = ProgressPush(lambda _: (release.wait(), None)[1], every_seconds=0, timeout=0.1)
    for step in range(1000):
        push.offer(_progress(step=step))
    push.close()
    release.set()


def test_push_carries_the_token_of_now_over_verified_tls(https_server: HTTPSServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    endpoint = Endpoint(f"https://localhost:{https_server.port}/v1/progress", token, https_server.certificate)
    for value in ("first", "rotated"):
        token.write_text(value + "\n")
        post(endpoint, _progress(step=3, total_steps=60, loss="1.5"))
    assert [r.headers["Authorization"] for r in https_server.requests] == ["Bearer first", "Bearer rotated"]
    assert [r.path for r in https_server.requests] == ["/v1/progress", "/v1/progress"]
    assert json.loads(https_server.requests[0].body) == {
        "stage": "train",
        "attempt": 0,
        "activity": "Training",
        "step": 3,
        "totalSteps": 60,
        "loss": "1.5",
    }


def test_push_refuses_plain_http(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="HTTPS only"):
        post(Endpoint("http://localhost:1/x", tmp_path / "token", tmp_path / "ca"), _progress())
