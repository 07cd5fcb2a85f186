"""How the pods that train together find each other and exchange their state, which each publishes again and again.

The states are JSON in a small key-value store that the first pod serves for as long as it trains: torch's TCPStore, as
torchrun uses it.
"""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Protocol

from finetune_api.base import Model
from finetune_api.result import StageResult
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.runtime.node import Node
from finetune_trainer.train.pods.root_cause import RoundState

_EVERY_SECONDS = 0.5
# Without a heartbeat of another pod; shorter where a process of this pod failed, most likely because that one is gone.
_LOST_SECONDS = 30.0
_LOST_SECONDS_AFTER_FAILURE = 10.0
# Between two looks; time in which this process is stopped as well (a frozen container) is not another pod's silence.
_LONGEST_LOOK_SECONDS = 2.0
_CONNECT_SECONDS = 10.0
# For the other pods to read this pod's final state.
_LEAVE_SECONDS = 10.0
log = logging.getLogger(__name__)


class KeyValueStore(Protocol):
    """The part of torch's TCPStore that is used."""

    def set(self, key: str, value: str) -> None:
        """Replace."""

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""

    def multi_get(self, keys: list[str]) -> list[bytes]:
        """Return what is there; waits for what is not."""

    def add(self, key: str, amount: int) -> int:
        """Return the new sum."""


class RoundStart(Model):
    """What the leading pod publishes to start a round."""

    # Where all processes meet.
    port: int
    # None: the processes choose.
    memory_settings: MemorySettings | None


class PodState(Model):
    """What a pod publishes of itself."""

    # Counts up.
    heartbeat: int = 0
    # By the leading pod, one per round.
    round_starts: tuple[RoundStart, ...] = ()
    rounds: tuple[RoundState, ...] = ()
    # How many progress reports its processes have made: signs of life.
    reports: int = 0
    # It was asked to stop.
    stop: bool = False
    # Set when it leaves.
    final: StageResult | None = None


class _Silence:
    """For how long another pod's heartbeat has not changed."""

    def __init__(self) -> None:
        self._heartbeat = -1
        self._seconds = 0.0
        self._looked_at = 0.0

    def seconds(self, heartbeat: int) -> float:
        now = time.monotonic()
        passed = min(now - self._looked_at, _LONGEST_LOOK_SECONDS)
        self._seconds = self._seconds + passed if heartbeat == self._heartbeat else 0.0
        self._heartbeat, self._looked_at = heartbeat, now
        return self._seconds


class Rendezvous:
    """One pod's end of it. A thread of its own reads and writes, so that nothing else ever waits for the network."""

    def __init__(self, node: Node, connect: Callable[[Node, threading.Event], KeyValueStore | None]) -> None:
        """`connect` may take as long as it needs, until the event is set."""
        self.node = node
        self._connect = connect
        self._lock = threading.Lock()
        self._own = PodState()
        self._others: dict[int, PodState] = {}
        self._silence = {index: _Silence() for index in range(node.count) if index != node.index}
        self._failing = False
        self._connected = False
        self._broken = False
        # The state of this pod that the others can read.
        self._published = PodState()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rendezvous", daemon=True)
        self._thread.start()

    @property
    def own(self) -> PodState:
        """This pod's state."""
        return self._own

    @property
    def others(self) -> dict[int, PodState]:
        """The states of the pods that have arrived, by index."""
        with self._lock:
            return dict(self._others)

    def publish(self, **changes: Any) -> None:
        """Replace members of this pod's state."""
        with self._lock:
            self._own = self._own.model_copy(update=changes)
        self._wake.set()

    def publish_round(self, **changes: Any) -> None:
        """Replace members of the current round's state."""
        with self._lock:
            *earlier, current = self._own.rounds
            rounds = (*earlier, current.model_copy(update=changes))
            self._own = self._own.model_copy(update={"rounds": rounds})
        self._wake.set()

    def publish_failure(self) -> None:
        """Publish that the current round failed in this pod, and whether it had failed in another one before."""
        self._failing = True
        self._wake.set()

    def lost(self, index: int) -> bool:
        """Return whether the heartbeat of a pod that had arrived has stopped; to be asked again and again."""
        other = self.others.get(index)
        if other is None:
            return self._broken
        rounds = self._own.rounds
        failed = bool(rounds) and rounds[-1].failed is not None
        limit = _LOST_SECONDS_AFTER_FAILURE if failed else _LOST_SECONDS
        silent = self._silence[index].seconds(other.heartbeat) >= limit
        return other.final is None and (silent or self._broken)

    def leave(self, final: StageResult) -> None:
        """Publish how this pod ends; returns when the others can read it, or after a moment."""
        self.publish(final=final)
        deadline = time.monotonic() + _LEAVE_SECONDS
        while not self._may_leave() and time.monotonic() < deadline:
            time.sleep(_EVERY_SECONDS / 5)
        self._closing.set()
        self._wake.set()
        # A thread that cannot reach the network any more is left behind.
        self._thread.join(_EVERY_SECONDS)

    def _may_leave(self) -> bool:
        if self._broken or not self._connected:
            return True
        if self._published.final is None:
            return False
        # The store ends with the leading pod, so that it goes last.
        return not self.node.leads or all(
            other.final is not None or self.lost(index) for index, other in self.others.items()
        )

    def _run(self) -> None:
        try:
            store = self._connect(self.node, self._closing)
            self._connected = store is not None
            while store is not None and not self._closing.is_set():
                self._exchange(store)
                self._wake.wait(_EVERY_SECONDS)
                self._wake.clear()
        except (RuntimeError, OSError, ValueError) as error:
            if not self._closing.is_set():
                log.warning("the other pods cannot be reached: %s", str(error).partition("\n")[0])
            self._broken = True

    def _exchange(self, store: KeyValueStore) -> None:
        if self._failing:
            self._failing = False
            if self._own.rounds[-1].failed is None:
                self.publish_round(failed=store.add(f"failed/{len(self._own.rounds)}", 1))
        with self._lock:
            own = self._own = self._own.model_copy(update={"heartbeat": self._own.heartbeat + 1})
        store.set(_key(self.node.index), own.model_dump_json(by_alias=True))
        self._published = own
        here = [index for index in self._silence if index in self._others or store.check([_key(index)])]
        if not here:
            return
        texts = store.multi_get([_key(index) for index in here])
        found = {index: PodState.model_validate_json(text) for index, text in zip(here, texts, strict=True)}
        with self._lock:
            self._others = found


def _key(index: int) -> str:
    return f"node/{index}"


def open_store(node: Node, closing: threading.Event) -> KeyValueStore | None:
    """Serve the store, or connect to it as soon as it is served; returns None if `closing` is set before.

    Raises:
        RuntimeError: the port is taken.
    """
    if not node.leads and not _wait_for(node, closing):
        return None
    # Its C++ code logs a stack of a hundred lines for each lost connection.
    with _quiet():
        from torch.distributed import TCPStore
    host = "127.0.0.1" if node.leads else node.host
    patience = timedelta(seconds=_CONNECT_SECONDS)
    store: KeyValueStore = TCPStore(host, node.port, is_master=node.leads, wait_for_workers=False, timeout=patience)
    return store


def _wait_for(node: Node, closing: threading.Event) -> bool:
    """Return whether the leading pod serves the store: its name may be known late, and its pod start much later."""
    while not closing.is_set():
        with contextlib.suppress(OSError):
            socket.create_connection((node.host, node.port), _CONNECT_SECONDS).close()
            return True
        closing.wait(_EVERY_SECONDS)
    return False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    name = "TORCH_CPP_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ.setdefault(name, "FATAL")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
