"""A plain HTTP proxy between one operator and the API server, which can be made to fail as networks and servers do."""

import asyncio
import random
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from tests.faults.api import Api

_HOP = {"host", "connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length"}
# Of the requests and answers that a fault could hit, the share that it does.
_SHARE = 0.5


@dataclass
class Trouble:
    """What is wrong at present; several things may be."""

    # Answer with this status instead of asking.
    statuses: list[int] = field(default_factory=list)
    # Seconds before a request is passed on.
    delays: list[float] = field(default_factory=list)
    requests_lost: int = 0
    answers_lost: int = 0
    # A watch gets the error that its resourceVersion is too old.
    gone: int = 0


class Proxy:
    """One proxy, at `url`. `trouble` may be changed at any time; `hits` counts what it did."""

    def __init__(self, api: Api, dice: random.Random) -> None:
        self._api = api
        self._dice = dice
        self.trouble = Trouble()
        self.hits = 0
        self._watches: set[asyncio.Transport] = set()
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.ServerRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen on a free port of loopback."""
        timeout = aiohttp.ClientTimeout(sock_connect=5.0)
        self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=False, read_bufsize=4 << 20)
        server = web.Server(self._handle, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        """Close everything."""
        if self._runner:
            await self._runner.cleanup()
        if self._session:
            await self._session.close()

    def drop_watches(self) -> None:
        """Cut the connections of all watches."""
        for transport in list(self._watches):
            self.hits += 1
            transport.abort()

    def _struck(self, present: object) -> bool:
        struck = bool(present) and self._dice.random() < _SHARE
        self.hits += struck
        return struck

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        trouble, watch = self.trouble, "watch" in request.query
        if self._struck(trouble.delays):
            await asyncio.sleep(max(trouble.delays, default=0.0))
        if self._struck(trouble.statuses) and trouble.statuses:
            return _refusal(trouble.statuses[-1])
        if watch and self._struck(trouble.gone):
            return _expired() if self._dice.random() < 0.7 else _refusal(410)
        if self._struck(trouble.requests_lost):
            return _cut(request)
        body = await request.read() or None
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        assert self._session is not None  # started
        try:
            async with self._session.request(
                request.method, self._api.server + request.raw_path, data=body, headers=headers, ssl=self._api.tls
            ) as answer:
                if watch and answer.status == 200:
                    return await self._stream(request, answer)
                data = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return _cut(request)
        if self._struck(trouble.answers_lost):
            return _cut(request)
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP}
        return web.Response(status=answer.status, body=data, headers=kept)

    async def _stream(self, request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(
            status=answer.status, headers={k: v for k, v in answer.headers.items() if k.lower() not in _HOP}
        )
        await response.prepare(request)
        transport = request.transport
        if transport is None:
            return response
        self._watches.add(transport)
        try:
            async for data in answer.content.iter_any():
                await response.write(data)
        except (aiohttp.ClientError, OSError):
            return _cut(request)
        finally:
            self._watches.discard(transport)
        return response


def _cut(request: web.BaseRequest) -> web.StreamResponse:
    """End the connection in the middle."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)


def _status(code: int) -> dict[str, object]:
    reason = {429: "TooManyRequests", 410: "Expired", 500: "InternalError"}[code]
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    return {**status, "message": f"a fault: {reason}"}


def _refusal(code: int) -> web.Response:
    return web.json_response(_status(code), status=code, headers={"Retry-After": "1"} if code == 429 else {})


def _expired() -> web.Response:
    """A watch that begins well: the API server says it in the stream when its cache knows."""
    return web.json_response({"type": "ERROR", "object": _status(410)})
