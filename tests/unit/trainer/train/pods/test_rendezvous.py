"""The real store between two pods."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from finetune_api.result import StageResult
from finetune_trainer.runtime.node import Node
from finetune_trainer.train.pods import rendezvous
from finetune_trainer.train.pods.rendezvous import Rendezvous, open_store
from finetune_trainer.train.process_group import free_port

OVER = StageResult(stage="train", exit_code=0)


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_pods_hear_each_other_whichever_comes_first() -> None:
    port = free_port()
    second = Rendezvous(Node(1, 2, "127.0.0.1", port), open_store)
    first = Rendezvous(Node(0, 2, "127.0.0.1", port), open_store)
    first.publish(stop=True)
    until(lambda: 0 in second.others and second.others[0].stop)
    until(lambda: 1 in first.others)
    leaving = threading.Thread(target=first.leave, args=(OVER,))
    leaving.start()
    until(lambda: second.others[0].final == OVER)
    second.leave(OVER)
    leaving.join(60)
    assert not leaving.is_alive()
    assert not second.lost(0)


def test_a_store_that_is_gone_is_a_lost_leader() -> None:
    port = free_port()
    first = Rendezvous(Node(0, 2, "127.0.0.1", port), open_store)
    second = Rendezvous(Node(1, 2, "127.0.0.1", port), open_store)
    until(lambda: 0 in second.others)
    # As when its process is killed.
    first._closing.set()
    first._wake.set()
    until(lambda: second.lost(0))


def test_a_pod_that_nobody_waits_for_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # More than a test may take: so long it would wait for others.
    monkeypatch.setattr(rendezvous, "_LEAVE_SECONDS", 3600.0)
    Rendezvous(Node(1, 2, "127.0.0.1", free_port()), open_store).leave(OVER)
