"""How long the trainer waits for servers: one table for all stages, and for buckets, hubs and web servers alike.

A server that is being restarted, or a network that is being repaired, must not cost an attempt. So whoever talks to a
server raises NoAnswerError, and `patiently` tries again until the time of the table is over.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from finetune_trainer.errors import NoAnswerError, UnavailableError

# How long a server may be away, in seconds.
OUTAGE = 1800
# A name that DNS does not know is most likely misspelt; but a Service without ready pods may have none for a while.
UNKNOWN_NAME = 120
# Between two tries; doubled each time.
FIRST_PAUSE = 5
LONGEST_PAUSE = 60
# One connection, and one answer: of S3 servers, which the client tries so often by itself, and of all others.
S3_CONNECT = 10
S3_ANSWER = 60
S3_TRIES = 4
ANSWER = 30

# SIGTERM has to be seen in time.
_LOOK = 1.0
T = TypeVar("T")
log = logging.getLogger(__name__)
_brief = threading.local()


@dataclass(frozen=True)
class Watch:
    """Who is told that the trainer waits, and who may end that."""

    waits: Callable[[], None]
    # It waits no longer.
    over: Callable[[], None]
    # Whether SIGTERM came: what cannot be reached now is left to the next attempt.
    stopped: Callable[[], bool]


_watches: list[Watch] = []


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Inside, tell `watch` about each wait, in whatever thread."""
    _watches.append(watch)
    try:
        yield
    finally:
        _watches.remove(watch)


@contextmanager
def brief() -> Iterator[None]:
    """Inside, this thread does not wait: what it does can be left out, or is done again later."""
    before = getattr(_brief, "set", False)
    _brief.set = True
    try:
        yield
    finally:
        _brief.set = before


def patiently(
    action: Callable[[], T],
    moved: Callable[[], int] = lambda: 0,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Return what `action` returns; while it raises NoAnswerError, try again.

    `moved` returns how much of the whole has arrived, if the next try continues there: while that grows, the server is
    not away, and its time begins again.

    Raises:
        UnavailableError: the server did not answer in time.
    """
    since: float | None = None
    most, pause, waited = moved(), float(FIRST_PAUSE), False
    while True:
        try:
            found = action()
        except NoAnswerError as error:
            now, arrived = clock(), moved()
            if since is None or arrived > most:
                since, most, pause = now, arrived, float(FIRST_PAUSE)
            left = since + _allowed(error) - now
            if left <= 0 or _stopped():
                raise UnavailableError(_given_up(error, now - since)) from error
            log.warning("%s; trying again for another %s", error.message, _in_words(left))
            waited = True
            _wait(min(pause, left), clock, sleep)
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            if waited:
                log.info("the server answers again")
                for watch in _watches:
                    watch.over()
            return found


def is_unknown_name(error: BaseException | None) -> bool:
    """Return whether an error was caused by a name that DNS does not know."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return error.errno == socket.EAI_NONAME
        error = error.__cause__ or error.__context__
    return False


def _allowed(error: NoAnswerError) -> float:
    if getattr(_brief, "set", False):
        return 0
    return UNKNOWN_NAME if error.unknown_name else OUTAGE


def _stopped() -> bool:
    return any(watch.stopped() for watch in _watches)


def _wait(seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    for watch in _watches:
        watch.waits()
    end = clock() + seconds
    while (left := end - clock()) > 0 and not _stopped():
        sleep(min(_LOOK, left))


def _given_up(error: NoAnswerError, seconds: float) -> str:
    return f"{error.message} (tried for {_in_words(seconds)})" if seconds > 0 else error.message


def _in_words(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
