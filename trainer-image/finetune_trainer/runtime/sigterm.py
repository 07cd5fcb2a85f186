"""What SIGTERM does: by default the stage ends at once; a stage that must save first defers that or passes it on.

with context.stop.deferred():
    ...
    if context.stop.requested: save, upload, raise Preempted(...)
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequested(BaseException):
    """Raised in the main thread when the pod is told to stop and nothing has to be saved first.

    A BaseException, so that no library swallows it.
    """


class StopFlag:
    """Knows whether the pod was told to stop."""

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
    def passed_on(self, tell: Callable[[], None]) -> Iterator[None]:
        """Inside, SIGTERM sets the flag and calls `tell`, which tells a process that ends by itself."""
        self._instead = tell
        try:
            yield
        finally:
            self._instead = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle SIGTERM inside; only the main thread may do that."""

        def handle(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
            self.request()

        before = signal.signal(signal.SIGTERM, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def ignored() -> Iterator[None]:
    """Inside, SIGTERM does nothing: the result of what has ended is being kept."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
