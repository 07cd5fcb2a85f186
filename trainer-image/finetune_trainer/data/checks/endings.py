"""Answers that stop in the middle of a sentence, as if they were generated with a length limit."""

import re
from collections.abc import Sequence

# Shorter answers may be a word, a title or a label.
_LONG = 120
# If a larger share of the answers ends without punctuation, it is the style of the dataset.
_USUAL_SHARE = 0.3
_SAME_LENGTH = 5
# Lines that are not sentences: lists, tables, headings, code, addresses, formulas.
_NO_SENTENCE = re.compile(r"^\s*(?:[-*•|#>`$]|\d+[.)]|\w+:\s)|https?://|```|[=;{}\[\]|]")
# Verb and noun endings with which a Korean sentence may end without punctuation.
_KOREAN_END = re.compile(r"(?:[다요죠까네지함음임됨것기중등용셈듯야어아해라자세걸군데니])$")


def is_unfinished(answer: str) -> bool:
    """Return whether a long answer ends with a letter or a comma instead of final punctuation."""
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
    """Return whether unfinished answers of these lengths, among `long_answers` long ones, look cut off.

    They do if they are the exception, or if the longest of them have the same length.
    """
    if not lengths:
        return False
    longest = max(lengths)
    return len(lengths) <= _USUAL_SHARE * long_answers or sum(n == longest for n in lengths) >= _SAME_LENGTH
