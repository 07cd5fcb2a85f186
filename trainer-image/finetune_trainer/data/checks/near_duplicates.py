"""Rows that are nearly the same as an earlier one, found by their MinHash signatures.

Locality-sensitive hashing: J. Leskovec, A. Rajaraman, J. Ullman, "Mining of Massive Datasets", chapter 3.
"""

from collections.abc import Iterator
from typing import Any

from finetune_trainer.data.checks.minhash import VALUES

# Share of common shingles of two rows. For short Korean questions with answers, a changed ending or a typing error
# leaves a larger share, a different answer to the question a smaller one.
RESEMBLANCE = 0.85
# 16 bands of 8 values: a pair of resemblance 0.85 shares a band in 99.4 % of cases, one of 0.5 in 6 %.
_BANDS = 16
_VALUES_PER_BAND = VALUES // _BANDS
# In a band, rows are compared with the first row of their bucket; those that differ from it with the next, and so on.
_ROUNDS = 8
_BLOCK = 1 << 16


def pairs(signatures: Any, guards: Any) -> Any:
    """Return an array of (earlier row, later row) indices, sorted by the later one, without repetition.

    `signatures`: rows x VALUES, uint16. `guards`: uint64; rows with different ones are never similar.
    """
    import numpy as np

    found = [np.empty((0, 2), np.int64)]
    for band in range(_BANDS):
        values = signatures[:, band * _VALUES_PER_BAND : (band + 1) * _VALUES_PER_BAND]
        words = np.ascontiguousarray(values).view(np.uint64)
        keys = _mixed(guards ^ _mixed(words[:, 0] ^ _mixed(words[:, 1])))
        for earlier, later in _candidates(keys, signatures):
            found.append(np.column_stack((earlier, later)))
    together = np.unique(np.concatenate(found), axis=0)
    return together[np.lexsort((together[:, 0], together[:, 1]))]


def later_ones(alike: Any, rows: int) -> Any:
    """Return which rows (a bool array) are similar to an earlier row that is kept, given the result of `pairs`."""
    import numpy as np

    dropped = np.zeros(rows, bool)
    for earlier, later in alike.tolist():
        if not dropped[earlier]:
            dropped[later] = True
    return dropped


def groups(alike: Any, rows: int) -> Any:
    """Return for each row the first row (an int64 array) that it is connected to, directly or through others."""
    import numpy as np

    parent = list(range(rows))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for earlier, later in alike.tolist():
        one, other = root(earlier), root(later)
        parent[max(one, other)] = min(one, other)
    return np.array([root(row) for row in range(rows)], np.int64)


def _candidates(keys: Any, signatures: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (earlier, later) rows that share a key and are similar."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    for _ in range(_ROUNDS):
        if len(order) < 2:
            return
        same = keys[order[1:]] == keys[order[:-1]]
        starts = np.flatnonzero(np.concatenate(([True], ~same)))
        sizes = np.diff(np.append(starts, len(order)))
        in_company = np.repeat(sizes > 1, sizes)
        first = np.repeat(order[starts], sizes)[in_company]
        order = order[in_company]
        others = order != first
        first, order = first[others], order[others]
        like = _alike(signatures, first, order)
        yield first[like], order[like]
        order = order[~like]


def _alike(signatures: Any, one: Any, other: Any) -> Any:
    import numpy as np

    result = np.empty(len(one), bool)
    for start in range(0, len(one), _BLOCK):
        block = slice(start, start + _BLOCK)
        equal = np.count_nonzero(signatures[one[block]] == signatures[other[block]], axis=1)
        result[block] = equal >= RESEMBLANCE * VALUES
    return result


def _mixed(words: Any) -> Any:
    """The finalizer of MurmurHash3, by Austin Appleby (public domain)."""
    import numpy as np

    words = (words ^ (words >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    return words ^ (words >> np.uint64(33))
