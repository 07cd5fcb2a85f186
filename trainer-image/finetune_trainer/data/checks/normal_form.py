"""Normal forms of text that ignore spacing, case and final punctuation."""

import re
import unicodedata

_NUMBER = re.compile(r"\d+")


def normal_form(text: str) -> str:
    """Return the text in NFKC, case-folded, and without white space, which varies in Korean."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return "".join(text.casefold().split())


def without_end(form: str) -> str:
    """Return a normal form without final punctuation."""
    return form.rstrip(".?!…")


def numbers(text: str) -> str:
    """Return the numbers of a normal form: rows that differ in one are not duplicates, however similar they are."""
    return ",".join(_NUMBER.findall(text))
