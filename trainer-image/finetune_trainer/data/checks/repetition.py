"""Rows that repeat others: told from 64-bit hashes of their texts.

With a million rows, one pair of different texts has the same hash with a probability of 3 in 100 million.
"""

from typing import Any

# One answer to so many prompts, and to such a share of them, is boilerplate.
_MANY_PROMPTS = 10
_SHARE = 0.01
# Shorter answers may be labels, which repeat by design.
_LONG = 30


def repeated(keys: Any) -> Any:
    """Return which rows (a bool array) have the key of an earlier one."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    found = np.zeros(len(keys), bool)
    found[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return found


def contradicting(prompts: Any, answers: Any) -> Any:
    """Return which rows have the prompt of an earlier one and another answer than the first with it."""
    import numpy as np

    _, first, of_row = np.unique(prompts, return_index=True, return_inverse=True)
    return answers != answers[first[of_row]]


def overused(answers: Any, prompts: Any, lengths: Any) -> Any:
    """Return which rows have a long answer that very many other prompts have too. `lengths`: of the answers."""
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
