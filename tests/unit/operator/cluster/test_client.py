import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from finetune_operator.cluster.client import FINETUNE_JOBS, JOBS, PODS, KubeClient
from finetune_operator.cluster.errors import AlreadyExists, ApiError, Conflict, LeadershipLost, NotFound, Unreachable


class Server:
    """Answers whatever the test says, and keeps the requests with their bodies."""

    def __init__(self) -> None:
        self.requests: list[tuple[web.Request, bytes]] = []
        self.answers: list[tuple[int, object]] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((request, await request.read()))
        status, document = self.answers.pop(0)
        return web.json_response(document, status=status)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def kube(server: Server) -> AsyncIterator[KubeClient]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    async with TestServer(application) as running:
        kube = KubeClient(client.Configuration(host=str(running.make_url("")).rstrip("/")))
        yield kube
        await kube.close()


def _status(code: int, reason: str) -> tuple[int, object]:
    return code, {"kind": "Status", "reason": reason, "message": f"{reason} it is"}


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (404, "NotFound", NotFound),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (403, "Forbidden", ApiError),
        (500, "InternalError", ApiError),
    ],
)
async def test_a_refusal_is_an_exception_of_its_kind(
    server: Server, kube: KubeClient, code: int, reason: str, error: type[ApiError]
) -> None:
    server.answers = [_status(code, reason)]
    with pytest.raises(error, match=f"{reason} it is") as caught:
        await kube.get(PODS, "team", "a")
    assert type(caught.value) is error


async def test_no_answer_is_unreachable() -> None:
    kube = KubeClient(client.Configuration(host="http://127.0.0.1:1"))
    with pytest.raises(Unreachable):
        await kube.get(PODS, "team", "a")
    await kube.close()


async def test_a_list_is_read_to_its_last_page(server: Server, kube: KubeClient) -> None:
    server.answers = [
        (200, {"metadata": {"continue": "next"}, "items": [{"n": 1}]}),
        (200, {"metadata": {}, "items": [{"n": 2}]}),
    ]
    assert await kube.list(PODS, None, labels="a=b") == [{"n": 1}, {"n": 2}]
    assert [r.query.get("continue") for r, _ in server.requests] == [None, "next"]


async def test_reads_never_accept_old_data(server: Server, kube: KubeClient) -> None:
    server.answers = [(200, {"metadata": {}, "items": []})]
    await kube.list(JOBS, "team", labels="a=b")
    request = server.requests[0][0]
    assert (request.path, dict(request.query)) == (
        "/apis/batch/v1/namespaces/team/jobs",
        {"limit": "500", "labelSelector": "a=b"},
    )


async def test_the_status_is_applied_on_the_server_by_its_manager(server: Server, kube: KubeClient) -> None:
    server.answers = [(200, {})]
    await kube.apply_status(FINETUNE_JOBS, "team", "coach", {"status": {"phase": "Pending"}}, manager="us")
    request, body = server.requests[0]
    assert (request.method, request.path) == (
        "PATCH",
        "/apis/finetune.dev/v1alpha1/namespaces/team/finetunejobs/coach/status",
    )
    assert (request.content_type, dict(request.query)) == (
        "application/apply-patch+yaml",
        {"fieldManager": "us", "force": "true"},
    )
    assert json.loads(body) == {"status": {"phase": "Pending"}}


async def test_the_groups_that_are_served_have_names(server: Server, kube: KubeClient) -> None:
    server.answers = [(200, {"groups": [{"name": "batch"}, {"name": "finetune.dev"}]})]
    assert await kube.groups() == {"batch", "finetune.dev"}
    assert server.requests[0][0].path == "/apis"


async def test_a_name_cannot_leave_its_place_in_the_path(server: Server, kube: KubeClient) -> None:
    server.answers = [(200, {})]
    await kube.get(PODS, "team", "../secrets/x")
    assert server.requests[0][0].raw_path == "/api/v1/namespaces/team/pods/..%2Fsecrets%2Fx"


async def test_what_is_deleted_is_what_was_read_and_goes_after_its_pods(server: Server, kube: KubeClient) -> None:
    server.answers = [(200, {"kind": "Job"})]
    await kube.delete(JOBS, "team", "a", uid="u", resource_version="7", propagation="Foreground")
    request, body = server.requests[0]
    assert (request.method, request.path) == ("DELETE", "/apis/batch/v1/namespaces/team/jobs/a")
    sent = json.loads(body)
    assert sent["propagationPolicy"] == "Foreground"
    assert sent["preconditions"] == {"uid": "u", "resourceVersion": "7"}


async def test_a_change_that_is_not_permitted_is_not_sent(server: Server, kube: KubeClient) -> None:
    def refuse() -> None:
        raise LeadershipLost

    permitted = kube.permitted(refuse)
    metadata = {"name": "coach", "resourceVersion": "1"}
    changes = [
        lambda: permitted.create(JOBS, "team", {"metadata": metadata}),
        lambda: permitted.replace(JOBS, "team", "coach", {"metadata": metadata}),
        lambda: permitted.delete(JOBS, "team", "coach", uid="u", resource_version="1", propagation="Background"),
        lambda: permitted.apply_status(FINETUNE_JOBS, "team", "coach", {}, manager="us"),
    ]
    for change in changes:
        with pytest.raises(LeadershipLost):
            await change()
    assert server.requests == []


async def test_reads_need_no_permit_and_the_other_client_none_at_all(server: Server, kube: KubeClient) -> None:
    def refuse() -> None:
        raise LeadershipLost

    server.answers = [(200, {}), (201, {})]
    await kube.permitted(refuse).get(PODS, "team", "a")
    await kube.create(JOBS, "team", {"metadata": {"name": "a"}})
    assert [r.method for r, _ in server.requests] == ["GET", "POST"]


async def test_each_change_asks_for_its_own_permit(server: Server, kube: KubeClient) -> None:
    asked: list[int] = []
    permitted = kube.permitted(lambda: asked.append(len(server.requests)))
    server.answers = [(201, {}), (201, {})]
    for _ in range(2):
        await permitted.create(JOBS, "team", {"metadata": {"name": "a"}})
    assert asked == [0, 1]
