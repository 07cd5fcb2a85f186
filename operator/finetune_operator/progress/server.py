"""The HTTPS endpoint that running pods push their progress to. It works on every replica."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from aiohttp import web
from pydantic import ValidationError

from finetune_api.progress import MAXIMUM_BODY_BYTES, Progress
from finetune_operator.cluster.errors import KubeError
from finetune_operator.progress.auth import Authenticator, Denied, Sender
from finetune_operator.progress.store import Entry, ProgressStore
from finetune_operator.serving.metrics import Metrics

_log = logging.getLogger(__name__)

PATH = "/v1/namespaces/{namespace}/finetunejobs/{name}/progress"
_BODY_SECONDS = 10.0


class RateLimiter:
    """A token bucket for each key: `burst` at once, then one every `seconds`."""

    def __init__(self, burst: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._seconds = seconds
        self._clock = clock
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}

    def allow(self, key: tuple[str, str]) -> bool:
        """Take a token; False if there is none."""
        now = self._clock()
        left, at = self._buckets.get(key, (float(self._burst), now))
        left = min(left + (now - at) / self._seconds, float(self._burst))
        allowed = left >= 1.0
        self._buckets[key] = (left - 1.0 if allowed else left, now)
        return allowed

    @property
    def keys(self) -> Collection[tuple[str, str]]:
        """The keys that have a bucket."""
        return self._buckets.keys()

    def forget(self, key: tuple[str, str]) -> None:
        """Drop a key; it gets a full bucket if it is used again."""
        self._buckets.pop(key, None)


class ProgressEndpoint:
    """Checks a push and passes it to the store; calls `accepted(key, entry)` for each push that is not outdated."""

    def __init__(
        self,
        authenticator: Authenticator,
        store: ProgressStore,
        metrics: Metrics,
        accepted: Callable[[tuple[str, str], Entry], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authenticator = authenticator
        self._store = store
        self._metrics = metrics
        self._accepted = accepted
        self._clock = clock
        self._limiter = RateLimiter(burst=10, seconds=1.0, clock=clock)

    def application(self) -> web.Application:
        """Return the web application."""
        application = web.Application(client_max_size=MAXIMUM_BODY_BYTES)
        application.router.add_post(PATH, self._post)
        return application

    def forget(self, key: tuple[str, str]) -> None:
        """Drop what is kept for a job that has ended."""
        self._store.forget(key)
        self._limiter.forget(key)

    def retain(self, keys: Collection[tuple[str, str]]) -> None:
        """Drop what is kept for all jobs but these."""
        for key in {*self._store.entries, *self._limiter.keys} - set(keys):
            self.forget(key)

    async def _post(self, request: web.Request) -> web.Response:
        key = request.match_info["namespace"], request.match_info["name"]
        try:
            await self._take(request, key)
        except Denied as denied:
            self._metrics.progress_rejected(denied.status)
            _log.info("a progress push was refused: %s", denied.sentence, extra={"key": key})
            headers = {"Retry-After": "1"} if denied.status == 429 else {}
            return web.Response(status=denied.status, text=f"{denied.sentence}\n", headers=headers)
        except KubeError as error:
            self._metrics.progress_rejected(503)
            _log.warning("a progress push could not be checked: %s", error, extra={"key": key})
            return web.Response(status=503, text="the API server cannot be reached now; try again later\n")
        return web.Response(text="accepted\n")

    async def _take(self, request: web.Request, key: tuple[str, str]) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Denied(401, "send the token as 'Authorization: Bearer <token>'")
        body = await self._body(request)
        sender = await self._authenticator.sender(token, *key)
        if not self._limiter.allow(key):
            raise Denied(429, "too many pushes for this FineTuneJob; send at most one per second")
        progress = _parse(body, sender)
        entry = self._store.take(key, sender.job_uid, progress, self._clock())
        # An outdated push is answered as accepted: the sender can do nothing about it.
        if entry is not None:
            self._accepted(key, entry)

    async def _body(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise Denied(413, f"the body is longer than {MAXIMUM_BODY_BYTES} bytes") from None
        except TimeoutError:
            raise Denied(408, f"the body did not arrive within {_BODY_SECONDS:.0f} seconds") from None


def _parse(body: bytes, sender: Sender) -> Progress:
    try:
        progress = Progress.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise Denied(422, f"{where}: {first['msg']}") from None
    if (progress.stage, str(progress.attempt)) != (sender.stage, sender.attempt):
        raise Denied(403, f"the token belongs to attempt {sender.attempt} of {sender.stage}")
    return progress.model_copy(update={"pod_creation_time": sender.creation_time})
