import json
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

from finetune_api.progress import MAXIMUM_BODY_BYTES
from finetune_operator.cluster.errors import Unreachable
from finetune_operator.progress.auth import Authenticator
from finetune_operator.progress.server import ProgressEndpoint, RateLimiter
from finetune_operator.progress.store import Entry, ProgressStore
from finetune_operator.serving.metrics import Metrics
from tests.unit.operator.fakes import Clock, FakeKube, running_train

PATH = "/v1/namespaces/team/finetunejobs/coach/progress"
REPORT = {"stage": "train", "attempt": 1, "activity": "Training", "step": 3, "totalSteps": 60, "loss": "0.83"}
Client = TestClient[Request, Application]


class World:
    def __init__(self) -> None:
        self.kube = FakeKube()
        running_train(self.kube)
        self.clock = Clock()
        self.metrics = Metrics()
        self.store = ProgressStore()
        self.accepted: list[Entry] = []
        self.endpoint = ProgressEndpoint(
            Authenticator(self.kube, self.clock),
            self.store,
            self.metrics,
            lambda key, entry: self.accepted.append(entry),
            self.clock,
        )


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def client(world: World) -> AsyncIterator[Client]:
    async with TestClient(TestServer(world.endpoint.application())) as client:
        yield client


async def _post(client: Client, body: object = REPORT, token: str | None = "good", path: str = PATH) -> tuple[int, str]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with client.post(path, data=data, headers=headers) as response:
        return response.status, await response.text()


async def test_a_report_of_the_running_pod_is_taken(world: World, client: Client) -> None:
    assert await _post(client) == (200, "accepted\n")
    assert [entry.latest.step for entry in world.accepted] == [3]


async def test_a_report_has_the_time_of_its_pod_whatever_it_says(world: World, client: Client) -> None:
    await _post(client, {**REPORT, "podCreationTime": "2030-01-01T00:00:00Z"})
    assert [entry.latest.pod_creation_time for entry in world.accepted] == ["2026-01-01T00:00:00Z"]


async def test_what_is_kept_for_jobs_that_are_over_can_be_dropped(world: World, client: Client) -> None:
    await _post(client)
    world.endpoint.retain([("team", "coach")])
    assert len(world.store.entries) == 1
    world.endpoint.retain([])
    assert (dict(world.store.entries), list(world.endpoint._limiter.keys)) == ({}, [])


@pytest.mark.parametrize(
    ("body", "token", "path", "status"),
    [
        (REPORT, None, PATH, 401),
        (REPORT, "forged", PATH, 401),
        (REPORT, "good", PATH.replace("coach", "other"), 403),
        ({**REPORT, "attempt": 0}, "good", PATH, 403),
        ({**REPORT, "stage": "export"}, "good", PATH, 403),
        (REPORT, "good", "/v1/namespaces/team/finetunejobs/coach", 404),
        (b" " * (MAXIMUM_BODY_BYTES + 1), "good", PATH, 413),
        ({**REPORT, "loss": "NaN"}, "good", PATH, 422),
        ({"stage": "train"}, "good", PATH, 422),
        (b"{", "good", PATH, 422),
    ],
)
async def test_a_wrong_push_is_refused(
    world: World, client: Client, body: object, token: str | None, path: str, status: int
) -> None:
    assert (await _post(client, body, token, path))[0] == status
    assert world.accepted == []


async def test_the_longest_allowed_body_is_read(client: Client) -> None:
    body = json.dumps(REPORT).encode()
    assert (await _post(client, body + b" " * (MAXIMUM_BODY_BYTES - len(body))))[0] == 200


async def test_a_refusal_names_the_field_and_not_its_value(client: Client) -> None:
    _, text = await _post(client, {**REPORT, "loss": "hunter2"})
    assert text.startswith("loss: ")
    assert "hunter2" not in text


async def test_too_many_pushes_are_asked_to_wait(client: Client) -> None:
    statuses = [(await _post(client))[0] for _ in range(11)]
    assert statuses == [200] * 10 + [429]


async def test_a_refused_token_does_not_use_up_the_rate_of_the_job(client: Client) -> None:
    for _ in range(20):
        await _post(client, token="forged")
    assert (await _post(client))[0] == 200


async def test_old_news_is_answered_as_taken_and_dropped(world: World, client: Client) -> None:
    await _post(client)
    assert (await _post(client, {**REPORT, "step": 2}))[0] == 200
    assert world.store.entries["team", "coach"].latest.step == 3


async def test_an_outage_of_the_api_server_is_no_refusal(world: World, client: Client) -> None:
    world.kube.refuse["get", "pods"] = Unreachable("down")
    assert (await _post(client))[0] == 503


async def test_refusals_are_counted_by_status(world: World, client: Client) -> None:
    await _post(client, token="forged")
    assert world.metrics.registry.get_sample_value("finetune_progress_rejects_total", {"code": "401"}) == 1


def test_a_bucket_fills_up_again_with_time() -> None:
    clock = Clock()
    limiter = RateLimiter(burst=1, seconds=2.0, clock=clock)
    answers = [limiter.allow(("n", "a")), limiter.allow(("n", "a"))]
    clock.now += 2.0
    assert [*answers, limiter.allow(("n", "a"))] == [True, False, True]


def test_the_rate_of_one_job_does_not_touch_another() -> None:
    limiter = RateLimiter(burst=1, seconds=2.0, clock=Clock())
    limiter.allow(("n", "a"))
    assert limiter.allow(("n", "b"))
