"""Waiting for something to become true."""

from __future__ import annotations

import time
from collections.abc import Callable

from .api import ApiError
from .layout import ClusterError

_POLL_SECONDS = 0.1


def poll(what: str, trouble: Callable[[], str | None], *, seconds: float) -> None:
    """Asks until ``trouble`` returns None. Raises ClusterError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            reason = trouble()
        except ApiError as error:
            reason = str(error)
        if reason is None:
            return
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: still not well after {seconds:.0f} s: {reason}")
        time.sleep(_POLL_SECONDS)
