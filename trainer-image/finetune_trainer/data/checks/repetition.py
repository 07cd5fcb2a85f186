"""Rows that repeat others, found by 64-bit hashes of their texts.

With a million rows, the probability that two different texts have the same hash is 3 in 100 million.
"""

from typing import Any

# An answer to at least this many prompts, and this share of them, is boilerplate.
_MANY_PROMPTS = 10
_SHARE = 0.01
# Shorter answers may be labels, which repeat by design.
_LONG = 30


def first_with(keys: Any) -> Any:
    """Return for each row the first row (an int64 array) with its key."""
    import numpy as np

    _, first, of_row = np.unique(keys, return_index=True, return_inverse=True)
    return first[of_row]


def unless_common(keys: Any, others: Any, many: int, share: float) -> Any:
    """Return the keys, replaced by `others` where more rows than `many` and than the share have the same key."""
    import numpy as np

    _, of_row, counts = np.unique(keys, return_inverse=True, return_counts=True)
    common = counts > max(many, share * len(keys))
    return np.where(common[of_row], others, keys)


def contradicting(prompts: Any, answers: Any) -> Any:
    """Return which rows have the prompt of an earlier row, and a different answer than the first such row."""
    return answers != answers[first_with(prompts)]


def overused(answers: Any, prompts: Any, lengths: Any) -> Any:
    """Return which rows have a long answer that very many prompts share. `lengths`: of the answers."""
    import numpy as np

    long = lengths >= _LONG
    distinct = np.unique(np.column_stack((answers, prompts))[long & _shared(answers)], axis=0)[:, 0]
    values, counts = np.unique(distinct, return_counts=True)
    often = values[counts >= max(_MANY_PROMPTS, _SHARE * len(answers))]
    return np.isin(answers, often) & long


def _shared(keys: Any) -> Any:
    import numpy as np

    _, of_row, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return counts[of_row] > 1
