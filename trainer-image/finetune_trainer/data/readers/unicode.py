"""Normalizes the text of a row to Unicode NFC."""

import unicodedata
from typing import Any


def compose(value: Any) -> tuple[Any, bool]:
    """Return the value with every string in NFC, and whether any changed. macOS writes decomposed Hangul."""
    if isinstance(value, str):
        if value.isascii() or unicodedata.is_normalized("NFC", value):
            return value, False
        return unicodedata.normalize("NFC", value), True
    if isinstance(value, list):
        return (value, False) if _is_composed(value) else ([compose(v)[0] for v in value], True)
    if isinstance(value, dict):
        return (
            (value, False) if _is_composed(value) else ({compose(k)[0]: compose(v)[0] for k, v in value.items()}, True)
        )
    return value, False


def _is_composed(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() or unicodedata.is_normalized("NFC", value)
    if isinstance(value, list):
        return all(map(_is_composed, value))
    if isinstance(value, dict):
        return all(map(_is_composed, value)) and all(map(_is_composed, value.values()))
    return True
