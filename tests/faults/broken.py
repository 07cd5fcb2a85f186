"""Operators broken on purpose, to see the judge find it: started in place of the program, only ever by a test."""

import asyncio
import os
import sys
from collections.abc import Callable

from finetune_operator import decide, main, workqueue

VARIABLE = "FINETUNE_FAULTS_BREAK"


def _never_waits() -> None:
    """It starts a train beside one that still ends."""
    decide._wait_for_others = lambda observation: None


def _forgets() -> None:
    """It does not come back to a job whose pass failed, and no full list heals that."""
    workqueue.backoff_seconds = lambda failures: 1e6
    main.Operator._list_again = _never  # type: ignore[assignment, method-assign]


async def _never(operator: main.Operator) -> None:
    await asyncio.Event().wait()


BREAKS: dict[str, Callable[[], None]] = {"never-waits": _never_waits, "forgets": _forgets}

if __name__ == "__main__":
    BREAKS[os.environ[VARIABLE]]()
    sys.exit(main.main(sys.argv[1:]))
