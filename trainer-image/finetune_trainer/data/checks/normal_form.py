"""What texts have in common however they are spaced, cased or punctuated at their end."""

import re
import unicodedata

_NUMBER = re.compile(r"\d+")


def normal_form(text: str) -> str:
    """Return the text in NFKC, without case, and without white space, which Korean writers set as they like."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return "".join(text.casefold().split())


def without_end(form: str) -> str:
    """Return a normal form without the signs at its end."""
    return form.rstrip(".?!…")


def numbers(text: str) -> str:
    """Return the numbers of a normal form: rows that differ in one are not the same, however alike they look."""
    return ",".join(_NUMBER.findall(text))
