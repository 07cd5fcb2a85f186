"""From one line's value to an example, or to the reason why it is none. Reasons never repeat a row's text."""

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Literal

from finetune_trainer.data.example import Message, row_name
from finetune_trainer.errors import DatasetError

Format = Literal["Alpaca", "Messages"]
_ROLES = ("system", "user", "assistant")
_KEPT_CONTROLS = "\t\n\r"
_NAMES_SHOWN = 6
_NAME_LENGTH = 32


def detect(source: str, line: int, value: Mapping[str, Any]) -> Format:
    """Return the format of a source from its first object.

    Raises:
        DatasetError: it is none of ours.
    """
    if "messages" in value:
        return "Messages"
    if "instruction" in value or "output" in value:
        return "Alpaca"
    hint = (
        "it looks like ShareGPT; convert conversations/from/value to messages/role/content"
        if "conversations" in value
        else "Alpaca rows have instruction, output and maybe input; Messages rows have messages"
    )
    names = ", ".join(str(k)[:_NAME_LENGTH] for k in list(value)[:_NAMES_SHOWN]) or "none"
    raise DatasetError(f"{row_name(source, line)}: the format is not known from its fields ({names}); {hint}")


def compose(value: Any) -> tuple[Any, bool]:
    """Return the value with every string in NFC, and whether that changed one. macOS writes Hangul decomposed."""
    if isinstance(value, str):
        if unicodedata.is_normalized("NFC", value):
            return value, False
        return unicodedata.normalize("NFC", value), True
    if isinstance(value, list):
        items = [compose(v) for v in value]
        return [v for v, _ in items], any(changed for _, changed in items)
    if isinstance(value, dict):
        pairs = {k: compose(v) for k, v in value.items()}
        return {k: v for k, (v, _) in pairs.items()}, any(changed for _, changed in pairs.values())
    return value, False


def parse(value: Any, row_format: Format) -> tuple[tuple[Message, ...], str] | str:
    """Return the messages and the Alpaca input of a row, or the reason why it is invalid."""
    if not isinstance(value, dict):
        return "it is not a JSON object"
    return _PARSERS[row_format](value)


def _alpaca(value: Mapping[str, Any]) -> tuple[tuple[Message, ...], str] | str:
    for field in ("instruction", "output"):
        if fault := _text_fault(value.get(field), f'field "{field}"'):
            return fault
    context = value.get("input")
    if context not in (None, "") and (fault := _text_fault(context, 'field "input"')) and str(context).strip():
        return fault
    question: Message = {"role": "user", "content": value["instruction"].strip()}
    answer: Message = {"role": "assistant", "content": value["output"].strip()}
    return (question, answer), str(context or "").strip()


def _messages(value: Mapping[str, Any]) -> tuple[tuple[Message, ...], str] | str:
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        return 'field "messages" is missing or empty'
    found: list[Message] = []
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict):
            return f"message {number} is not an object with role and content"
        if message.get("role") not in _ROLES:
            return f"message {number} has an unknown role; the roles are {', '.join(_ROLES)}"
        if fault := _text_fault(message.get("content"), f"the content of message {number}"):
            return fault
        found.append({"role": message["role"], "content": message["content"].strip()})
    return _turn_fault(found) or (tuple(found), "")


def _turn_fault(messages: list[Message]) -> str | None:
    first_turn = 1 if messages[0]["role"] == "system" else 0
    for number, message in enumerate(messages[first_turn:], first_turn + 1):
        if message["role"] == "system":
            return f"message {number} is a system message, which only the first may be"
        if message["role"] != ("user", "assistant")[(number - first_turn - 1) % 2]:
            return f"message {number} breaks the turns: user and assistant must alternate, and user begins"
    if messages[-1]["role"] != "assistant":
        return "the last message must be the assistant's answer"
    return None


def _text_fault(value: Any, name: str) -> str | None:
    if value is None or value == "":
        return f"{name} is missing or empty"
    if not isinstance(value, str):
        return f"{name} is not text"
    if not value.strip():
        return f"{name} is missing or empty"
    for character in value:
        category = unicodedata.category(character)
        if category == "Cs" or (category == "Cc" and character not in _KEPT_CONTROLS):
            return f"{name} has the control character U+{ord(character):04X}"
    return None


_PARSERS: dict[Format, Callable[[Mapping[str, Any]], tuple[tuple[Message, ...], str] | str]] = {
    "Alpaca": _alpaca,
    "Messages": _messages,
}
