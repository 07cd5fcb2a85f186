"""Watches, by kopf, which report only that something happened to a FineTuneJob: a pass reads everything itself.

kopf has its own event loop in its own thread, because it cancels all tasks of its loop when it ends, and it ends when a
watch is refused permanently. It is then started again, and nothing else is affected. It may also hang while it ends, if
one watch was refused while another waited for the API server; then it is abandoned.
"""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import kopf

from finetune_api import GROUP, PLURAL, VERSION
from finetune_operator import names
from finetune_operator.cluster.client import KubeClient, load_configuration
from finetune_operator.cluster.errors import KubeError
from finetune_operator.control.event_filter import EventFilter, Key

_log = logging.getLogger(__name__)

_SELECTOR = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
_RESTART_SECONDS = 5.0
_LOGIN_SECONDS = 1.0
_STOP_SECONDS = 5.0
_CANCELLATIONS = 2
_CANCEL_SECONDS = 1.0
# The token is read again this often, or when the API server refuses it.
_CREDENTIALS_LIFETIME = timedelta(minutes=30)


class EndlessBackoff:
    """Waits between the attempts of one request, without end: an outage of the API server may be long."""

    def __iter__(self) -> Iterator[float]:
        """Yield seconds: 1, 1, 2, 3, 5, then 8 forever."""
        yield from (1.0, 1.0, 2.0, 3.0, 5.0)
        while True:
            yield 8.0


class NoDifferences(kopf.DiffBaseStorage):
    """Saves the copy that kopf makes of each object to compare it with the next one, which nothing here needs."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return nothing."""
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> None:
        """Return nothing."""

    def store(self, **_: Any) -> None:
        """Keep nothing."""


def key_of(kind: str, body: Any) -> Key | None:
    """Return the key of the FineTuneJob to which an object belongs; None for a child without its label."""
    metadata = body["metadata"]
    if kind == PLURAL:
        return metadata["namespace"], metadata["name"]
    name = (metadata.get("labels") or {}).get(names.JOB_LABEL)
    return (metadata["namespace"], name) if name else None


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    # No custom resources or namespaces appear while it runs, so it does not need the right to watch them.
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.networking.error_backoffs = EndlessBackoff()
    settings.networking.connect_timeout = 5.0
    settings.networking.request_timeout = 60.0
    # A stream without even a bookmark is dead: the API server sends one every minute.
    settings.watching.inactivity_timeout = 90.0
    settings.watching.chunk_size = 500
    # kopf starts a worker for each object with an event, which then waits for more events of the object. That wait is
    # short and the number of workers is not limited, so no event waits for those of other objects. The work is trivial.
    settings.queueing.idle_timeout = 0.05
    settings.queueing.worker_limit = None
    settings.persistence.diffbase_storage = NoDifferences()
    settings.watching.label_selectors[lambda resource: resource.plural != PLURAL] = _SELECTOR
    return settings


async def _served() -> None:
    """Wait until the API server serves FineTuneJobs.

    While the API server starts, it does not, and kopf, which looks only once, would never watch them.
    """
    client = KubeClient(await load_configuration())
    try:
        while True:
            try:
                if GROUP in await client.groups():
                    return
            except KubeError as error:
                _log.info("the watches are waiting for the API server: %s", error)
            await asyncio.sleep(_LOGIN_SECONDS)
    finally:
        await client.close()


async def _credentials() -> kopf.ConnectionInfo:
    configuration = await load_configuration()
    authorization = await configuration.get_api_key_with_prefix("BearerToken")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        ca_data=configuration.ca_cert_data,
        insecure=not configuration.verify_ssl,
        token=authorization.split()[-1] if authorization else None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        # This also makes each login differ from the one before: kopf never uses refused credentials again, but an API
        # server that is starting refuses valid tokens for a while.
        expiration=datetime.now(UTC) + _CREDENTIALS_LIFETIME,
    )


class Watches:
    """Passes each event of a FineTuneJob or its children to the event filter, in the event loop that created this."""

    def __init__(self, namespaces: Collection[str], event_filter: EventFilter) -> None:
        self._namespaces = namespaces
        self._event_filter = event_filter
        self._owner_loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="watches", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._last_login = 0.0
        self._started = threading.Event()
        self.last_event = time.monotonic()

    def start(self) -> None:
        """Start watching, once."""
        # Without it kopf looks up the name of the user, and a pod's uid may have none.
        os.environ.setdefault("POD_ID", names.MANAGED_BY)
        self._thread.start()

    async def stop(self) -> None:
        """End the thread; if that takes more than a few seconds, it ends with the process."""
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._task.cancel)
        if self.alive:
            await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def started(self) -> bool:
        """Whether kopf has started at least once: without it, only the full list would notice a change."""
        return self._started.is_set()

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._forever())

    async def _forever(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        while True:
            try:
                await self._watch()
            except Exception as error:  # noqa: BLE001 - whatever ended it, watching must continue
                _log.error("the watches ended and are started again: %s: %s", type(error).__name__, error)
            await asyncio.sleep(_RESTART_SECONDS)

    async def _watch(self) -> None:
        """Let kopf run until one of its tasks ends, then stop all of it within a few seconds.

        Raises:
            Exception: what that task ended with.
        """
        others = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=_settings(),
            standalone=True,
            ready_flag=self._started,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
        )
        running = asyncio.create_task(kopf.run_tasks(tasks, ignored=others))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ended = [task for task in tasks if task.done()]
            await asyncio.wait({running}, timeout=_STOP_SECONDS)
        finally:
            # kopf cancels its tasks once, so that they can close what they have open.
            running.cancel()
            await asyncio.wait({running}, timeout=_CANCEL_SECONDS)
            for _ in range(_CANCELLATIONS):
                if left := asyncio.all_tasks() - others:
                    for task in left:
                        task.cancel()
                    await asyncio.wait(left, timeout=_CANCEL_SECONDS)
        for task in ended:
            task.result()

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for group, version, plural in ((GROUP, VERSION, PLURAL), ("batch", "v1", "jobs"), ("", "v1", "pods")):
            kopf.on.event(group, version, plural, registry=registry, id=plural, param=plural)(self._on_event)
        return registry

    async def _login(self, **_: Any) -> kopf.ConnectionInfo:
        since = time.monotonic() - self._last_login
        if since < _LOGIN_SECONDS:
            await asyncio.sleep(_LOGIN_SECONDS - since)
        self._last_login = time.monotonic()
        await _served()
        return await _credentials()

    async def _on_event(self, **event: Any) -> None:
        # Nothing is returned: kopf would write it into the object's status.
        self.last_event = time.monotonic()
        key = key_of(event["param"], event["body"])
        if key is None:
            return
        # kopf gives no type to what it lists when a watch starts.
        gone, relisted, body = event["type"] == "DELETED", event["type"] is None, event["event"]["object"]
        if event["param"] == PLURAL:
            handle = partial(self._event_filter.of_job, key, None if gone else body, relisted=relisted)
        else:
            handle = partial(self._event_filter.of_child, key, body, gone=gone, relisted=relisted)
        self._owner_loop.call_soon_threadsafe(handle)
