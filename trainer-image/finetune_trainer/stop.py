"""What SIGTERM does: by default the stage ends at once; a stage that must save first defers that.

with context.stop.deferred():
    ...
    if context.stop.requested: save, upload, raise Preempted(...)
"""

import signal
from collections.abc import Iterator
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

    @property
    def requested(self) -> bool:
        """True from the first SIGTERM on."""
        return self._requested

    def request(self) -> None:
        """Do what SIGTERM does.

        Raises:
            StopRequested: unless deferred.
        """
        self._requested = True
        if not self._deferred:
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
