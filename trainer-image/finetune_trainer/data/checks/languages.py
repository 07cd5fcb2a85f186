"""Letters by script."""

from functools import lru_cache
from typing import Any

from finetune_api.report import LanguageMix

_HANGUL = ((0xAC00, 0xD7A3), (0x1100, 0x11FF), (0x3130, 0x318F))
_LATIN = ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F))
# Greek to Georgian, Ethiopic to Greek Extended, kana, CJK, Yi. The gaps have no letters.
_OTHER = ((0x370, 0x10FF), (0x1200, 0x1FFF), (0x3041, 0x312F), (0x3400, 0xA4CF), (0xF900, 0xFAFF))


def count(codepoints: Any) -> Any:
    """Return how many of the code points (a uint32 array) are Hangul, Latin and other letters, as an array of three."""
    import numpy as np

    return np.bincount(_script_of()[np.minimum(codepoints, 0xFFFF)], minlength=4)[1:]


@lru_cache(maxsize=1)
def _script_of() -> Any:
    import numpy as np

    table = np.zeros(0x10000, np.uint8)
    for script, ranges in enumerate((_HANGUL, _LATIN, _OTHER), 1):
        for low, high in ranges:
            table[low : high + 1] = script
    return table


def mix(counts: Any) -> LanguageMix | None:
    """Return the shares of summed counts, or None without letters."""
    total = int(sum(counts))
    if not total:
        return None
    hangul, latin, other = (round(int(c) / total, 4) for c in counts)
    return LanguageMix(hangul=hangul, latin=latin, other=other)
