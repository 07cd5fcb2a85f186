"""Personal data in the rows: resident registration numbers, phones, cards, e-mail addresses."""

import re
from datetime import date
from typing import Literal

Kind = Literal["resident number", "phone", "card", "e-mail"]

_RESIDENT = re.compile(r"(?<![\d-])(\d{6})(-?)([1-8])(\d{6})(?![\d-])")
# Weights of the check digit: Resident Registration Act, enforcement rules. Numbers issued since October 2020 end with
# random digits, so the check digit is required only of numbers without a hyphen.
_RESIDENT_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
# Mobile numbers with or without separators; others need separators, or any long number would match.
_PHONE = re.compile(
    r"(?<![\d.-])(?:\+82[ -]?|0)"
    r"(?:1[016789](?P<m>[ .-]?)\d{3,4}(?P=m)\d{4}|(?:2|[3-6][1-5]|70)\)?(?P<l>[ .-])\d{3,4}(?P=l)\d{4})(?![\d-])"
)
_PLACEHOLDER_PHONE = re.compile(r"(?:1234.?5678|(\d)\1{3}.?\1{4})$")
# Only first digits of issuers: four years in a row, such as 2023 to 2026, must not match.
_CARD = re.compile(
    r"(?<![\d.-])(?:(?:2[2-7]|35|[4-69]\d)\d\d(?P<s>[ -]?)\d{4}(?P=s)\d{4}(?P=s)\d{4}"
    r"|3[47]\d{2}[ -]?\d{6}[ -]?\d{5})(?![\d-])"
)
# Starts at the @: starting at the name would search a long word, such as encoded bytes, once for each letter.
_MAIL = re.compile(r"(?<=[\w.+-])@((?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,})")
# Reserved for examples: RFC 2606.
_EXAMPLE_DOMAIN = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org)|example|test|invalid)$", re.IGNORECASE)
_DIGITS_IN_A_ROW = re.compile(r"\d{4}")


def kinds(text: str) -> set[Kind]:
    """Return which kinds of personal data the text seems to contain, without placeholders such as 010-1234-5678."""
    found: set[Kind] = set()
    if "@" in text and any(not _EXAMPLE_DOMAIN.search(m[1]) for m in _MAIL.finditer(text)):
        found.add("e-mail")
    if not _DIGITS_IN_A_ROW.search(text):
        return found
    if any(_is_resident_number(*m.groups()) for m in _RESIDENT.finditer(text)):
        found.add("resident number")
    if any(not _PLACEHOLDER_PHONE.search(m[0]) for m in _PHONE.finditer(text)):
        found.add("phone")
    if any(_is_card(re.sub(r"\D", "", m[0])) for m in _CARD.finditer(text)):
        found.add("card")
    return found


def _is_resident_number(birth: str, hyphen: str, century: str, rest: str) -> bool:
    year = (1900 if century in "1256" else 2000) + int(birth[:2])
    try:
        born = date(year, int(birth[2:4]), int(birth[4:]))
    except ValueError:
        return False
    if born > date.today():  # noqa: DTZ011 - a day does not matter
        return False
    digits = [int(d) for d in birth + century + rest]
    total = sum(w * d for w, d in zip(_RESIDENT_WEIGHTS, digits, strict=False))
    return bool(hyphen) or (11 - total % 11) % 10 == digits[-1]


def _is_card(digits: str) -> bool:
    """Luhn's check, ISO/IEC 7812-1."""
    if len(set(digits)) == 1:
        return False
    total = 0
    for position, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + position % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0
