import gc
import weakref
from collections.abc import Iterator

import pytest

from finetune_operator.control import gc_tuning


class Node:
    """Something that refers to itself, so that only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_stays_is_left_alone_by_later_collections() -> None:
    node = Node()
    gc_tuning.settle()
    assert not any(found is node for found in gc.get_objects())


def test_what_became_garbage_since_is_freed_by_the_next_call() -> None:
    node = Node()
    gc_tuning.settle()
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is not None
    gc_tuning.settle()
    assert gone() is None
