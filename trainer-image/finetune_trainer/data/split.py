"""Chooses the hold-out rows."""

import hashlib
from typing import Any

from finetune_trainer.data.findings import Findings
from finetune_trainer.errors import DatasetError

_MINIMUM_ROWS = 20
_MAXIMUM_ROWS = 200
_MAXIMUM_SHARE = 5  # one row in five


def target_rows(total: int, percent: int) -> int:
    """Return how many of `total` rows to hold out: `percent`, at least 20, at most 200 and a fifth, at least one."""
    wanted = max(-(-total * percent // 100), _MINIMUM_ROWS)
    return max(min(wanted, total // _MAXIMUM_SHARE, _MAXIMUM_ROWS), 1)


def holdout(groups: Any, names: Any, percent: int, seed: int) -> Any:
    """Return which rows (a bool array) to hold out. Rows of one group stay on one side.

    `groups`: the number of each row's group (int64). `names`: a hash of each row (uint64) that does not depend on its
    position in the dataset; the first row of a group names it.

    Raises:
        DatasetError: no group is small enough to be held out.
    """
    import numpy as np

    _, first, of_row, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    wanted = target_rows(len(groups), percent)
    drawn = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names[first].tolist()]
    held = np.zeros(len(first), bool)
    count = 0
    for group in sorted(range(len(first)), key=drawn.__getitem__):
        size = int(sizes[group])
        if count + size <= wanted:
            held[group] = True
            count += size
        if count == wanted:
            break
    if count in (0, len(groups)):
        raise DatasetError(
            "no example can be held out to judge the result, because too many have the same question; "
            "add examples with other questions"
        )
    return held[of_row]


def holdout_rows(findings: Findings, percent: int, seed: int, *, own: bool) -> Any:
    """Return which rows of the table (a bool array) to hold out; with `own`, those of dataset.holdout.sources.

    Raises:
        DatasetError: there are no rows to hold out, or none left to train on.
    """
    import numpy as np

    if own:
        held = findings.holdout & findings.kept
        if not held.any():
            raise DatasetError("dataset.holdout.sources have no usable example; correct them, or leave them out")
        return held
    held = np.zeros(len(findings.kept), bool)
    held[findings.kept] = holdout(findings.group[findings.kept], findings.question[findings.kept], percent, seed)
    return held
