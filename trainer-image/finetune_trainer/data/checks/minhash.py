"""Short signatures of rows, from which the share of common text of two rows can be estimated.

MinHash: A. Broder, "On the resemblance and containment of documents", 1997. All rows of a block are hashed at once.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

# With 128 values the standard error of a resemblance of 0.85 is sqrt(0.85 * 0.15 / 128) = 0.03.
VALUES = 128
# A shingle is three letters of Hangul (or CJK), or five of a script with fewer letters: about equally rare.
_SHORT, _LONG = 3, 5
_FIRST_OF_SHORT = 0x1100
_SEED = 20240726
# Small enough that the hashes of a block stay in the cache of a core.
_BLOCK_CODEPOINTS = 1 << 17


def signatures(rows: Sequence[Sequence[tuple[int, str]]]) -> Any:
    """Return an array of rows x VALUES, uint16. A row is a sequence of texts in normal form, each with its role.

    The same text in another role, such as chosen and rejected, counts as different text.
    """
    import numpy as np

    result = np.empty((len(rows), VALUES), np.uint16)
    start = 0
    while start < len(rows):
        end, size = start, 0
        while end < len(rows) and (end == start or size < _BLOCK_CODEPOINTS):
            size += sum(len(text) for _, text in rows[end])
            end += 1
        result[start:end] = _block(rows[start:end])
        start = end
    return result


def _block(rows: Sequence[Sequence[tuple[int, str]]]) -> Any:
    import numpy as np

    # The separator keeps shingles within a text, and an empty row gets one shingle.
    separator = "\0" * (_LONG - 1)
    pieces = [[(role, text or "\1") for role, text in row] or [(0, "\1")] for row in rows]
    text = separator.join(text for row in pieces for _, text in row) + separator
    codepoints = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    roles = np.repeat(
        np.array([role for row in pieces for role, _ in row], np.uint64),
        [len(text) for row in pieces for _, text in row],
    )
    starts = np.cumsum([0, *(sum(len(text) for _, text in row) for row in pieces)])[:-1]
    hashes = _shingles(codepoints, roles)
    multipliers, summands = _permutations()
    result = np.empty((VALUES, len(rows)), np.uint16)
    permuted = np.empty_like(hashes)
    for index in range(VALUES):
        np.multiply(hashes, multipliers[index], out=permuted)
        permuted += summands[index]
        # The high bits of a minimum are mostly zero; the low ones differ.
        result[index] = np.minimum.reduceat(permuted, starts).astype(np.uint16)
    return result.T


def _shingles(codepoints: Any, roles: Any) -> Any:
    """Return one well-mixed uint32 for each character that is not a separator."""
    import numpy as np

    kept = np.flatnonzero(codepoints)
    factors = _factors()
    wide = codepoints.astype(np.uint64)
    mixed = roles * factors[_LONG]
    for offset in range(_SHORT):
        mixed += wide[kept + offset] * factors[offset]
    longer = codepoints[kept] < _FIRST_OF_SHORT
    for offset in range(_SHORT, _LONG):
        mixed += np.where(longer, wide[kept + offset], 0) * factors[offset]
    mixed ^= mixed >> np.uint64(31)
    mixed *= factors[_LONG + 1]
    return (mixed >> np.uint64(32)).astype(np.uint32)


@lru_cache(maxsize=1)
def _factors() -> Any:
    import numpy as np

    return np.random.default_rng(_SEED).integers(0, 2**63, _LONG + 2, np.uint64) * np.uint64(2) + np.uint64(1)


@lru_cache(maxsize=1)
def _permutations() -> tuple[Any, Any]:
    import numpy as np

    random = np.random.default_rng(_SEED + 1)
    multipliers = random.integers(0, 2**31, VALUES, np.uint32) * np.uint32(2) + np.uint32(1)
    return multipliers, random.integers(0, 2**32, VALUES, np.uint32)
