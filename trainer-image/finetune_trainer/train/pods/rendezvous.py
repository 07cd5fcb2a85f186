"""How the pods that train together hear of each other: each says all that there is to say of itself, again and again.

It goes through a small key-value store that the first pod serves for as long as it trains: torch's, as torchrun's
does. What is in it is JSON.
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
# Without a word from another pod; the same where a process of this pod failed, most likely for want of that one.
_LOST_SECONDS = 30.0
_LOST_SECONDS_AFTER_FAILURE = 10.0
# Between two looks; time in which this process is stopped as well (a frozen container) is not another pod's silence.
_LONGEST_LOOK_SECONDS = 2.0
_CONNECT_SECONDS = 10.0
# For the others to hear a pod's last word.
_LEAVE_SECONDS = 10.0
log = logging.getLogger(__name__)


class KeyValueStore(Protocol):
    """The key-value store: of torch's TCPStore what is used of it."""

    def set(self, key: str, value: str) -> None:
        """Replace."""

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""

    def multi_get(self, keys: list[str]) -> list[bytes]:
        """Return what is there; waits for what is not."""

    def add(self, key: str, amount: int) -> int:
        """Return the new sum."""


class RoundStart(Model):
    """What the leading pod says of a round: at which port all processes meet, and the rung (None: they choose)."""

    port: int
    memory_settings: MemorySettings | None


class PodState(Model):
    """What a pod says of itself."""

    # Another one each time.
    beat: int = 0
    # By the leading pod, one per round.
    round_starts: tuple[RoundStart, ...] = ()
    rounds: tuple[RoundState, ...] = ()
    # How many its processes have made of their progress: signs of life.
    reports: int = 0
    # It was told to stop.
    stop: bool = False
    # Its last word, when it goes.
    left: StageResult | None = None


class _Silence:
    """For how long another pod has said nothing."""

    def __init__(self) -> None:
        self._beat = -1
        self._seconds = 0.0
        self._looked_at = 0.0

    def seconds(self, beat: int) -> float:
        now = time.monotonic()
        passed = min(now - self._looked_at, _LONGEST_LOOK_SECONDS)
        self._seconds = self._seconds + passed if beat == self._beat else 0.0
        self._beat, self._looked_at = beat, now
        return self._seconds


class Rendezvous:
    """One pod's end of it. A thread of its own reads and writes, so that nothing else ever waits for the network."""

    def __init__(self, node: Node, connect: Callable[[Node, threading.Event], KeyValueStore | None]) -> None:
        """`connect` may take as long as it needs, until the event is set."""
        self.node = node
        self._connect = connect
        self._lock = threading.Lock()
        self._said = PodState()
        self._others: dict[int, PodState] = {}
        self._silence = {index: _Silence() for index in range(node.count) if index != node.index}
        self._failing = False
        self._connected = False
        self._broken = False
        # Of what this pod says, what the others can read.
        self._written = PodState()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meeting", daemon=True)
        self._thread.start()

    @property
    def own(self) -> PodState:
        """What this pod says."""
        return self._said

    @property
    def others(self) -> dict[int, PodState]:
        """What those say that have arrived."""
        with self._lock:
            return dict(self._others)

    def say(self, **changes: Any) -> None:
        """Replace members of what this pod says."""
        with self._lock:
            self._said = self._said.model_copy(update=changes)
        self._wake.set()

    def tell(self, **changes: Any) -> None:
        """Replace members of what it tells of the present round."""
        with self._lock:
            *earlier, present = self._said.rounds
            rounds = (*earlier, present.model_copy(update=changes))
            self._said = self._said.model_copy(update={"rounds": rounds})
        self._wake.set()

    def failed(self) -> None:
        """Tell of the present round that it failed here, and whether it had failed elsewhere before."""
        self._failing = True
        self._wake.set()

    def lost(self, index: int) -> bool:
        """Return whether a pod that was there is not heard of any more; to be asked again and again."""
        other = self.others.get(index)
        if other is None:
            return self._broken
        rounds = self._said.rounds
        failed = bool(rounds) and rounds[-1].failed is not None
        limit = _LOST_SECONDS_AFTER_FAILURE if failed else _LOST_SECONDS
        silent = self._silence[index].seconds(other.beat) >= limit
        return other.left is None and (silent or self._broken)

    def leave(self, left: StageResult) -> None:
        """Say the last word; returns when it is heard, or after a moment."""
        self.say(left=left)
        deadline = time.monotonic() + _LEAVE_SECONDS
        while not self._heard() and time.monotonic() < deadline:
            time.sleep(_EVERY_SECONDS / 5)
        self._closing.set()
        self._wake.set()
        # One that cannot reach the network any more is left behind.
        self._thread.join(_EVERY_SECONDS)

    def _heard(self) -> bool:
        if self._broken or not self._connected:
            return True
        if self._written.left is None:
            return False
        # The store ends with the leading pod, so that it goes last.
        return not self.node.leads or all(
            other.left is not None or self.lost(index) for index, other in self.others.items()
        )

    def _run(self) -> None:
        try:
            board = self._connect(self.node, self._closing)
            self._connected = board is not None
            while board is not None and not self._closing.is_set():
                self._exchange(board)
                self._wake.wait(_EVERY_SECONDS)
                self._wake.clear()
        except (RuntimeError, OSError, ValueError) as error:
            if not self._closing.is_set():
                log.warning("the other pods cannot be reached: %s", str(error).partition("\n")[0])
            self._broken = True

    def _exchange(self, board: KeyValueStore) -> None:
        if self._failing:
            self._failing = False
            if self._said.rounds[-1].failed is None:
                self.tell(failed=board.add(f"failed/{len(self._said.rounds)}", 1))
        with self._lock:
            said = self._said = self._said.model_copy(update={"beat": self._said.beat + 1})
        board.set(_key(self.node.index), said.model_dump_json(by_alias=True))
        self._written = said
        here = [index for index in self._silence if index in self._others or board.check([_key(index)])]
        if not here:
            return
        texts = board.multi_get([_key(index) for index in here])
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
    # Its C++ code tells of each lost connection by a stack of a hundred lines.
    with _quiet():
        from torch.distributed import TCPStore
    host = "127.0.0.1" if node.leads else node.host
    patience = timedelta(seconds=_CONNECT_SECONDS)
    board: KeyValueStore = TCPStore(host, node.port, is_master=node.leads, wait_for_workers=False, timeout=patience)
    return board


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
