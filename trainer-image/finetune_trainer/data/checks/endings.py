"""Answers that stop in the middle of a sentence, as when the length of an answer was limited where they were made."""

import re
from collections.abc import Sequence

# Shorter answers may well be a word, a title or a label.
_LONG = 120
# Where more answers than this end without a sign, that is how the dataset is written.
_USUAL_SHARE = 0.3
_SAME_LENGTH = 5
# Lines that are no sentences: lists, tables, headings, code, addresses, formulas.
_NO_SENTENCE = re.compile(r"^\s*(?:[-*•|#>`$]|\d+[.)]|\w+:\s)|https?://|```|[=;{}\[\]|]")
# Verb and noun endings on which a Korean sentence may end without a sign.
_KOREAN_END = re.compile(r"(?:[다요죠까네지함음임됨것기중등용셈듯야어아해라자세걸군데니])$")


def is_unfinished(answer: str) -> bool:
    """Return whether a long answer ends on a letter or a comma where a sentence would end on a sign."""
    if len(answer) < _LONG:
        return False
    last = answer[-1]
    if last in ",、":
        return True
    if not last.isalpha():
        return False
    line = answer[answer.rfind("\n") + 1 :]
    return not _NO_SENTENCE.search(line) and not _KOREAN_END.search(line) and " " in line.strip()


def is_long(answer: str) -> bool:
    """Return whether an answer is long enough to be judged."""
    return len(answer) >= _LONG


def suspicious(lengths: Sequence[int], long_answers: int) -> bool:
    """Return whether unfinished answers of these lengths, among so many long ones, look cut off.

    They do where they are the exception, or where the longest of them have one and the same length.
    """
    if not lengths:
        return False
    longest = max(lengths)
    return len(lengths) <= _USUAL_SHARE * long_answers or sum(n == longest for n in lengths) >= _SAME_LENGTH
