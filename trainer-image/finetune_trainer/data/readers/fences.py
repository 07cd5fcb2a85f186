"""Markdown fences, which language models put around rows."""

import re

FENCE = re.compile(r"[ \t]*```\w*[ \t]*")
_FENCED_ROW = re.compile(r"```\w*+\s*+(.*\S)\s*```", re.DOTALL)


def is_fence(line: str) -> bool:
    """Return whether a line is only a fence."""
    return FENCE.fullmatch(line.rstrip("\r\n")) is not None


def unwrap(row: str) -> str | None:
    """Return the text between two fences on one line, or None without them."""
    found = _FENCED_ROW.fullmatch(row)
    return found[1] if found else None
