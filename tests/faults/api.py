"""The API server as the test itself uses it: directly, past the proxy, and patiently."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

Object = dict[str, Any]

_TIMEOUT = aiohttp.ClientTimeout(total=15.0)
_LARGEST_EVENT = 4 << 20
_FTJ = "/apis/finetune.dev/v1alpha1"
MERGE = "application/merge-patch+json"


class RefusedError(Exception):
    """The API server's answer is no success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:300]}")
        self.status = status


def path(plural: str, namespace: str, name: str | None = None, subresource: str | None = None) -> str:
    """Return the path of a namespaced object or list."""
    prefix = {"finetunejobs": _FTJ, "jobs": "/apis/batch/v1"}.get(plural, "/api/v1")
    parts = [prefix, "namespaces", namespace, plural]
    return "/".join([*parts, *(p for p in (name, subresource) if p)])


def everywhere(plural: str) -> str:
    """Return the path of the list of all namespaces."""
    return path(plural, "-").replace("/namespaces/-", "")


class Api:
    """A client with the rights of a kubeconfig's user."""

    def __init__(self, kubeconfig: Object) -> None:
        cluster = kubeconfig["clusters"][0]["cluster"]
        self.server: str = cluster["server"]
        self.tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
        headers = {"Authorization": f"Bearer {kubeconfig['users'][0]['user']['token']}"}
        self._session = aiohttp.ClientSession(headers=headers, timeout=_TIMEOUT, read_bufsize=_LARGEST_EVENT)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def call(self, method: str, url: str, body: Object | None = None, content_type: str = "") -> Object:
        """Make one request.

        Raises:
            RefusedError: the answer is no success.
            aiohttp.ClientError, TimeoutError, OSError: there is none.
        """
        headers = {"Content-Type": content_type or "application/json"}
        data = json.dumps(body) if body is not None else None
        async with self._session.request(method, self.server + url, data=data, headers=headers, ssl=self.tls) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise RefusedError(answer.status, text)
            found: Object = json.loads(text)
            return found

    async def insist(self, method: str, url: str, body: Object | None = None, content_type: str = "") -> Object | None:
        """Repeat it until the API server has decided; None if it refuses (404, 409, 422)."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                try:
                    return await self.call(method, url, body, content_type)
                except RefusedError as refused:
                    if refused.status in (404, 409, 422):
                        return None
            await asyncio.sleep(0.5)

    async def patch(self, url: str, body: Object) -> Object | None:
        """Merge-patch it, insisting."""
        return await self.insist("PATCH", url, body, MERGE)

    async def items(self, url: str) -> list[Object]:
        """Return all items, insisting."""
        found = await self.insist("GET", url)
        return list(found["items"]) if found else []

    async def follow(
        self, url: str, labels: str, on_list: Callable[[list[Object]], None], on_event: Callable[[str, Object], None]
    ) -> None:
        """List and watch for ever; after an interruption all is listed again."""
        selector = f"labelSelector={labels}" if labels else ""
        while True:
            found = await self.insist("GET", f"{url}?{selector}")
            if found is None:
                continue
            on_list(found["items"])
            query = (
                f"{url}?{selector}&watch=true&timeoutSeconds=300&resourceVersion={found['metadata']['resourceVersion']}"
            )
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                async for event in self._events(query):
                    if event["type"] == "ERROR":
                        break
                    on_event(event["type"], event["object"])
            await asyncio.sleep(0.2)

    async def _events(self, url: str) -> AsyncIterator[Object]:
        timeout = aiohttp.ClientTimeout(sock_connect=5.0)
        async with self._session.get(self.server + url, ssl=self.tls, timeout=timeout) as answer:
            async for line in answer.content:
                yield json.loads(line)
