import asyncio
import contextlib
import getpass
import itertools
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import kopf
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from finetune_api import GROUP, PLURAL, VERSION
from finetune_operator.cluster.client import KubeClient
from finetune_operator.cluster.errors import KubeError, Unreachable
from finetune_operator.control import watches
from finetune_operator.control.event_filter import EventFilter
from finetune_operator.control.watches import EndlessBackoff, Watches, key_of
from tests.unit.operator.fakes import LABELS

_NO_FILTER = EventFilter(lambda *_: None, lambda *_: None, lambda *_: None)


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

    async def ends() -> None:
        started.release()
        raise kopf.LoginError("refused")

    async def spawn(**_: object) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(ends())]

    monkeypatch.setattr(kopf, "spawn_tasks", spawn)
    monkeypatch.setattr(watches, "_RESTART_SECONDS", 0.01)
    monkeypatch.setattr(watches, "_STOP_SECONDS", 60.0)
    watching = Watches((), _NO_FILTER)
    watching.start()
    assert await asyncio.to_thread(lambda: [started.acquire(timeout=60) for _ in range(3)]) == [True] * 3
    await watching.stop()
    assert not watching.alive


async def test_watching_starts_again_when_kopf_is_stuck_after_a_watch_was_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = threading.Semaphore(0)

    async def ends() -> None:
        started.release()
        raise kopf.LoginError("refused")

    async def stuck() -> None:
        # A watch that waits for a login which nobody makes any more.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    async def spawn(**_: object) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(stuck()), asyncio.create_task(ends())]

    monkeypatch.setattr(kopf, "spawn_tasks", spawn)
    monkeypatch.setattr(watches, "_RESTART_SECONDS", 0.01)
    monkeypatch.setattr(watches, "_STOP_SECONDS", 0.05)
    monkeypatch.setattr(watches, "_CANCEL_SECONDS", 0.05)
    watching = Watches((), lambda key: None)
    watching.start()
    assert await asyncio.to_thread(lambda: [started.acquire(timeout=60) for _ in range(3)]) == [True] * 3
    monkeypatch.setattr(watches, "_STOP_SECONDS", 60.0)
    await watching.stop()
    assert not watching.alive


async def test_watching_waits_for_an_api_server_that_does_not_name_finetunejobs_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[set[str] | KubeError] = [Unreachable("refused"), {"batch"}, {"batch", "finetune.dev"}]

    async def groups(_: KubeClient) -> set[str]:
        answer = answers.pop(0)
        if isinstance(answer, KubeError):
            raise answer
        return answer

    async def configuration() -> client.Configuration:
        return client.Configuration(host="http://127.0.0.1:1")

    monkeypatch.setattr(watches, "load_configuration", configuration)
    monkeypatch.setattr(KubeClient, "groups", groups)
    monkeypatch.setattr(watches, "_LOGIN_SECONDS", 0.0)
    await Watches((), lambda key: None)._login()
    assert answers == []


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
    watching = Watches((), _NO_FILTER)
    assert not watching.started
    watching.start()
    assert await asyncio.to_thread(watching._started.wait, 60)
    assert watching.started
    await watching.stop()


def _served(*, objects: int) -> web.Application:
    """An API server with the three resources that are watched, and that many FineTuneJobs."""
    groups = {"/api/v1": ["pods", "namespaces"], "/apis/batch/v1": ["jobs"], f"/apis/{GROUP}/{VERSION}": [PLURAL]}

    async def answer(request: web.Request) -> web.StreamResponse:
        path = request.path
        if path == "/api":
            return web.json_response({"versions": ["v1"]})
        if path == "/apis":
            named = [{"groupVersion": g, "version": g.split("/")[1]} for g in ("batch/v1", f"{GROUP}/{VERSION}")]
            listed = [{"name": v["groupVersion"].split("/")[0], "preferredVersion": v, "versions": [v]} for v in named]
            return web.json_response({"groups": listed})
        if path in groups:
            verbs = ["get", "list", "watch"]
            found = [
                {"name": n, "singularName": n, "kind": n, "namespaced": True, "verbs": verbs} for n in groups[path]
            ]
            return web.json_response({"resources": found})
        if request.query.get("watch"):
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.sleep(3600)
            return response
        count = objects if path.endswith(PLURAL) else 0
        metadata = [{"namespace": "team", "name": f"job-{n}", "uid": f"uid-{n}"} for n in range(count)]
        items = [{"metadata": {**m, "resourceVersion": "1"}} for m in metadata]
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    return application


async def test_news_of_one_object_does_not_wait_for_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = 300
    as_it_is = watches._settings()
    assert as_it_is.queueing.idle_timeout < 1

    def settings() -> kopf.OperatorSettings:
        # The worker of each object waits for more of it for as long as this test takes.
        as_it_is.queueing.idle_timeout = 3600.0
        as_it_is.queueing.exit_timeout = 0.0
        return as_it_is

    seen: set[tuple[str, str]] = set()
    all_seen = asyncio.Event()

    def hear(key: tuple[str, str], _: float) -> None:
        seen.add(key)
        if len(seen) == objects:
            all_seen.set()

    async with TestServer(_served(objects=objects)) as server:

        async def credentials() -> kopf.ConnectionInfo:
            return kopf.ConnectionInfo(
                server=str(server.make_url("")).rstrip("/"), expiration=datetime.now(UTC) + timedelta(1)
            )

        async def configuration() -> client.Configuration:
            return client.Configuration(host=str(server.make_url("")).rstrip("/"))

        monkeypatch.setattr(watches, "load_configuration", configuration)
        monkeypatch.setattr(watches, "_credentials", credentials)
        monkeypatch.setattr(watches, "_settings", settings)
        watching = Watches((), EventFilter(hear, lambda *_: None, lambda *_: None))
        watching.start()
        try:
            await asyncio.wait_for(all_seen.wait(), 60)
        finally:
            await watching.stop()
