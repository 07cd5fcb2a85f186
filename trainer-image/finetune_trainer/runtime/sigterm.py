"""SIGTERM: by default the stage ends at once; a stage that must save first defers that or passes it on.

with context.stop.deferred():
    ...
    if context.stop.requested: save, upload, raise Preempted(...)
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequested(BaseException):
    """Raised in the main thread when SIGTERM comes and nothing has to be saved first.

    A BaseException, so that no library swallows it.
    """


class StopFlag:
    """Whether SIGTERM came, and what it does."""

    def __init__(self) -> None:
        self._requested = False
        self._deferred = False
        self._instead: Callable[[], None] | None = None

    @property
    def requested(self) -> bool:
        """True from the first SIGTERM on."""
        return self._requested

    def request(self) -> None:
        """Do what SIGTERM does.

        Raises:
            StopRequested: unless deferred or passed on.
        """
        self._requested = True
        if self._instead is not None:
            self._instead()
        elif not self._deferred:
            raise StopRequested

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, SIGTERM only sets the flag."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    @contextmanager
    def passed_on(self, notify: Callable[[], None]) -> Iterator[None]:
        """Inside, SIGTERM sets the flag and calls `notify`, which asks other processes to end."""
        self._instead = notify
        try:
            yield
        finally:
            self._instead = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside, handle SIGTERM; only the main thread may call it."""

        def handle(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
            self.request()

        before = signal.signal(signal.SIGTERM, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def ignored() -> Iterator[None]:
    """Inside, SIGTERM does nothing: the result is being stored."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
