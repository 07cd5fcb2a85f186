"""Sends the newest progress to the operator from a background thread; nothing waits for it or fails because of it."""

import http.client
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from finetune_api.progress import MAXIMUM_BODY_BYTES, Progress

_TIMEOUT_SECONDS = 2.0
_EVERY_SECONDS = 5.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Endpoint:
    """The operator's URL, and files that are read for every request: both are rotated while the pod runs."""

    url: str
    token_file: Path
    ca_file: Path


def endpoint_from_environment() -> Endpoint | None:
    """Return what the operator put into the pod's environment, or None outside of a pod."""
    url, token, ca = (os.environ.get(f"FINETUNE_PROGRESS_{n}") for n in ("URL", "TOKEN_FILE", "CA_FILE"))
    return Endpoint(url, Path(token), Path(ca)) if url and token and ca else None


def post(endpoint: Endpoint, progress: Progress) -> None:
    """Send one progress.

    Raises:
        OSError, http.client.HTTPException: the operator was not reached or did not accept it.
        ValueError: the progress is too large, or a file is invalid.
    """
    parts = urlsplit(endpoint.url)
    body = progress.model_dump_json(by_alias=True, exclude_none=True).encode()
    if len(body) > MAXIMUM_BODY_BYTES:
        raise ValueError(f"a progress of {len(body)} bytes is too large")
    if parts.scheme != "https" or parts.hostname is None:
        raise ValueError("progress goes over HTTPS only: it carries a token")
    # http.client, because it uses no proxy: the operator is inside the cluster.
    connection = http.client.HTTPSConnection(
        parts.hostname,
        parts.port or 443,
        timeout=_TIMEOUT_SECONDS,
        context=ssl.create_default_context(cafile=str(endpoint.ca_file)),
    )
    try:
        headers = {
            "Authorization": f"Bearer {endpoint.token_file.read_text(encoding='utf-8').strip()}",
            "Content-Type": "application/json",
        }
        connection.request("POST", parts.path, body=body, headers=headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise http.client.HTTPException(f"the operator answered {answer.status}")
    finally:
        connection.close()


class ProgressPush:
    """Keeps the newest progress and sends it: at once if it is new, else at most every five seconds."""

    def __init__(
        self, send: Callable[[Progress], None], every_seconds: float = _EVERY_SECONDS, timeout: float = _TIMEOUT_SECONDS
    ) -> None:
        self._send = send
        self._every = every_seconds
        self._timeout = timeout
        self._changed = threading.Condition()
        self._waiting: Progress | None = None
        self._urgent = False
        self._closing = False
        self._activity: str | None = None
        self._step: int | None = None
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def offer(self, progress: Progress) -> None:
        """Take the newest progress; older ones that were not sent yet are dropped."""
        last = progress.step is not None and progress.step == progress.total_steps
        with self._changed:
            first_or_last = (progress.step == 1 or last) and progress.step != self._step
            news = progress.activity != self._activity or first_or_last
            self._activity, self._step = progress.activity, progress.step
            self._waiting = progress
            self._urgent = self._urgent or news
            self._changed.notify()

    def close(self) -> None:
        """Send what is waiting and end; takes no longer than the requests' timeout."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(2 * self._timeout)

    def _run(self) -> None:
        sent_at, sequence = float("-inf"), 0
        while True:
            with self._changed:
                while not self._closing:
                    wait = None if self._waiting is None else sent_at + self._every - time.monotonic()
                    if self._waiting is not None and (self._urgent or (wait is not None and wait <= 0)):
                        break
                    self._changed.wait(wait)
                progress, self._waiting, self._urgent = self._waiting, None, False
            if progress is None:
                return
            sent_at, sequence = time.monotonic(), sequence + 1
            try:
                # The requests reach the operator's replicas in turn, and one of them may be slow.
                self._send(progress.model_copy(update={"sequence": sequence}))
            except Exception as error:  # noqa: BLE001 - training never fails because the operator is down
                log.debug("the progress was not sent: %s", error)
