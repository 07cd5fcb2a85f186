"""Markdown fences, which language models put around the rows they write."""

import re

FENCE = re.compile(r"[ \t]*```\w*[ \t]*")
_FENCED_ROW = re.compile(r"```\w*+\s*+(.*\S)\s*```", re.DOTALL)


def is_fence(line: str) -> bool:
    """Whether a line is nothing but a fence."""
    return FENCE.fullmatch(line.rstrip("\r\n")) is not None


def unwrap(row: str) -> str | None:
    """Return what is between the two fences of a row on one line, or None if it has none."""
    found = _FENCED_ROW.fullmatch(row)
    return found[1] if found else None
