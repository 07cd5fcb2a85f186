"""What is done to the text of a row, and what makes it unusable. Reasons never repeat the text."""

import re
from collections.abc import Sequence
from typing import Any

from finetune_trainer.data.rows.example import Message

# Control characters but tab, line feed and carriage return, and the halves of characters (surrogates).
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def is_missing(value: Any) -> bool:
    """Whether a field has nothing in it; pandas writes NaN for that."""
    return value is None or value == "" or (isinstance(value, float) and value != value)


def text_fault(value: Any, name: str) -> str | None:
    """Return why a value is no text to learn from, or None; `name` is how the sentence begins."""
    if not isinstance(value, str):
        return f"{name} is missing or empty" if is_missing(value) else f"{name} is not text"
    if not value or value.isspace():
        return f"{name} is missing or empty"
    if found := _CONTROL.search(value):
        return f"{name} has the control character U+{ord(found[0]):04X}"
    return None


def turn_fault(messages: Sequence[Message]) -> str | None:
    """Return why messages are no conversation that ends on an answer, or None."""
    first_turn = 1 if messages[0]["role"] == "system" else 0
    for number, message in enumerate(messages[first_turn:], first_turn + 1):
        if message["role"] == "system":
            return f"message {number} is a system message, which only the first may be"
        if message["role"] != ("user", "assistant")[(number - first_turn - 1) % 2]:
            return f"message {number} breaks the turns: user and assistant must alternate, and user begins"
    if messages[-1]["role"] != "assistant":
        return "the last message must be the assistant's answer"
    return None
