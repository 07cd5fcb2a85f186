import asyncio
import getpass
import itertools
import threading
from pathlib import Path

import kopf
import pytest

from finetune_operator import watches
from finetune_operator.watches import EndlessBackoff, Watches, key_of
from tests.unit.operator_io.fakes import LABELS


def test_a_fine_tune_job_is_its_own_key() -> None:
    assert key_of("finetunejobs", {"metadata": {"namespace": "team", "name": "coach"}}) == ("team", "coach")


def test_a_child_has_the_key_of_its_job() -> None:
    pod = {"metadata": {"namespace": "team", "name": "coach-train-0-x", "labels": LABELS}}
    assert key_of("pods", pod) == ("team", "coach")


def test_a_child_whose_label_was_taken_away_has_none() -> None:
    assert key_of("pods", {"metadata": {"namespace": "team", "name": "x"}}) is None


def test_requests_are_repeated_for_as_long_as_an_outage_lasts() -> None:
    assert list(itertools.islice(EndlessBackoff(), 1000))[-1] == 8.0


async def test_watching_starts_again_when_kopf_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    started = threading.Semaphore(0)

    async def ends(**_: object) -> None:
        started.release()
        raise kopf.LoginError("refused")

    monkeypatch.setattr(kopf, "operator", ends)
    monkeypatch.setattr(watches, "_RESTART_SECONDS", 0.01)
    watching = Watches((), lambda key: None)
    watching.start()
    assert await asyncio.to_thread(lambda: [started.acquire(timeout=5) for _ in range(3)]) == [True] * 3
    await watching.stop()
    assert not watching.alive


async def test_watching_starts_for_a_user_id_that_has_no_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 65532")

    config = tmp_path / "config"
    cluster = '{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}'
    context = '{"name": "c", "context": {"cluster": "c", "user": "u"}}'
    config.write_text(
        f'{{"clusters": [{cluster}], "contexts": [{context}], "current-context": "c", "users": [{{"name": "u"}}]}}'
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    monkeypatch.delenv("POD_ID", raising=False)
    monkeypatch.setattr(getpass, "getuser", nameless)
    watching = Watches((), lambda key: None)
    assert not watching.started
    watching.start()
    assert await asyncio.to_thread(watching._started.wait, 5)
    assert watching.started
    await watching.stop()
