"""The API server as the benchmark's user and its driver of plain Jobs see it."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import aiohttp

Object = dict[str, Any]

JOBS = "/apis/batch/v1/namespaces/{}/jobs"
PODS = "/api/v1/namespaces/{}/pods"
FINETUNE_JOBS = "/apis/finetune.dev/v1alpha1/namespaces/{}/finetunejobs"
_CONNECTIONS = 20


class Api:
    """Requests as the cluster's administrator, whom the API server never holds back."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server

    async def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Object:
        """Send one request and return the answer.

        Raises:
            AssertionError: the API server refused it.
        """
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type}
        async with self._session.request(method, self._server + path, data=data, headers=headers) as response:
            text = await response.text()
            assert response.status < 300, f"{method} {path}: {response.status} {text[:500]}"
            found: Object = json.loads(text)
            return found

    async def metrics(self) -> str:
        """Return the API server's own metrics."""
        async with self._session.get(f"{self._server}/metrics") as response:
            return await response.text()

    async def watch(self, path: str, labels: str) -> AsyncIterator[Object]:
        """Yield every matching object now and whenever it changes, for as long as the caller likes."""
        query = {"watch": "true", "labelSelector": labels}
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(self._server + path, params=query, timeout=timeout) as response:
            assert response.status == 200, await response.text()
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] in ("ADDED", "MODIFIED"):
                        yield event["object"]


@contextlib.asynccontextmanager
async def connect(kubeconfig: str) -> AsyncIterator[Api]:
    """Connect with the text of a kubeconfig of the local cluster, which is JSON."""
    found = json.loads(kubeconfig)
    cluster, user = found["clusters"][0]["cluster"], found["users"][0]["user"]
    context = ssl.create_default_context(cafile=cluster["certificate-authority"])
    headers = {"Authorization": f"Bearer {user['token']}"}
    # Watches hold a connection each, beside those of requests.
    connector = aiohttp.TCPConnector(ssl=context, limit=_CONNECTIONS + 10)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        yield Api(session, cluster["server"])


async def side_by_side(calls: Sequence[Callable[[], Awaitable[Any]]]) -> None:
    """Make calls, some at a time, in their order."""
    waiting = iter(calls)

    async def work() -> None:
        for call in waiting:
            await call()

    async with asyncio.TaskGroup() as group:
        for _ in range(_CONNECTIONS):
            group.create_task(work())


async def paced(calls: Sequence[Callable[[], Awaitable[Any]]], per_second: float) -> None:
    """Make calls at a steady pace, whatever each of them takes."""
    began = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        for number, call in enumerate(calls):
            await asyncio.sleep(max(0.0, began + number / per_second - asyncio.get_running_loop().time()))
            group.create_task(_awaited(call))


async def _awaited(call: Callable[[], Awaitable[Any]]) -> None:
    await call()
