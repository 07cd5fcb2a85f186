"""Which rows are held out to judge the result."""

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from finetune_trainer.data.example import Example
from finetune_trainer.errors import DatasetError

_MINIMUM_ROWS = 20
_MAXIMUM_ROWS = 200
_MAXIMUM_SHARE = 5  # one row in five


def group_key(example: Example) -> str:
    """Return what rows with the same question have in common, however it is spaced, cased or punctuated at its end."""
    question = next(m["content"] for m in example.messages if m["role"] == "user")
    text = unicodedata.normalize("NFKC", f"{question}\n{example.context}").casefold()
    return " ".join(text.split()).rstrip(".?!… ")


def target_rows(total: int, percent: int) -> int:
    """Return how many of `total` rows to hold out: `percent`, at least 20, at most 200 and a fifth, at least one."""
    wanted = max(-(-total * percent // 100), _MINIMUM_ROWS)
    return max(min(wanted, total // _MAXIMUM_SHARE, _MAXIMUM_ROWS), 1)


def holdout(examples: Sequence[Example], percent: int, seed: int) -> set[int]:
    """Return the row ids to hold out. Rows with the same question stay on one side.

    Raises:
        DatasetError: no row can be held out without its question being trained too.
    """
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for example in examples:
        groups[group_key(example)].append(example.row_id)
    wanted = target_rows(len(examples), percent)
    held: set[int] = set()
    for key in sorted(groups, key=lambda k: hashlib.sha256(f"{seed}:{k}".encode()).digest()):
        if len(held) + len(groups[key]) <= wanted:
            held.update(groups[key])
    if not held or len(held) == len(examples):
        raise DatasetError(
            "no example can be held out to judge the result, because too many ask the same question; "
            "add examples with other questions"
        )
    return held
