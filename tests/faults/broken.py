"""Operators broken on purpose, to see the judge find it: started in place of the program, only ever by a test."""

import os
import sys
from collections.abc import Callable

from finetune_operator import decide, main, workqueue

VARIABLE = "FINETUNE_FAULTS_BREAK"


def _never_waits() -> None:
    """It starts a train beside one that still ends."""
    decide._wait_for_others = lambda observation: None


def _forgets() -> None:
    """It does not come back to a job whose pass failed."""
    workqueue.backoff_seconds = lambda failures: 1e6


BREAKS: dict[str, Callable[[], None]] = {"never-waits": _never_waits, "forgets": _forgets}

if __name__ == "__main__":
    BREAKS[os.environ[VARIABLE]]()
    sys.exit(main.main(sys.argv[1:]))
