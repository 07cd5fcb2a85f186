"""Parses one row's value into messages, or says why it is invalid. Reasons never repeat a row's text.

A dataset format is a parser and an entry of `_FORMATS`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from finetune_api.dataset_spec import COLUMNS
from finetune_api.training_spec import Method
from finetune_trainer import methods
from finetune_trainer.data.rows.columns import Columns, is_name, shown
from finetune_trainer.data.rows.example import Message, Unit, row_name
from finetune_trainer.data.rows.text_rules import is_missing, text_fault, turn_fault
from finetune_trainer.errors import DatasetError

Format = Literal["Alpaca", "ShareGPT", "Messages", "PromptCompletion", "Text", "Preference", "Binary"]
_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
}
_SHAREGPT_ROLES = _ROLES | {"human": _ROLES["user"]} | dict.fromkeys(("gpt", "model", "bot"), _ROLES["assistant"])
_LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


class Parsed(NamedTuple):
    """What a row says; the members are those of `Example`."""

    messages: tuple[Message, ...]
    context: str = ""
    rejected: str | None = None
    label: bool | None = None
    text: str | None = None


def detect(
    source: str,
    number: int,
    value: dict[str, Any],
    columns: Columns,
    unit: Unit = "line",
) -> Format:
    """Return the format of a source from its first object.

    Raises:
        DatasetError: it is none of ours.
    """
    renamed = columns.rename(value)
    for found, known in _FORMATS.items():
        if all(name in renamed for name in known.fields):
            return found
    # A wrong mapping is the likelier reason.
    columns.require(source, COLUMNS)
    lacking = {f: [name for name in known.fields if name not in renamed] for f, known in _FORMATS.items()}
    near = min(
        (f for f, known in _FORMATS.items() if len(lacking[f]) < len(known.fields)),
        key=lambda f: len(lacking[f]),
        default=None,
    )
    hint = f"{near} rows also have {' and '.join(lacking[near])}; " if near else ""
    if value and not any(map(is_name, value)):
        hint = "a table begins with a line of the names of its fields; "
    raise DatasetError(
        f"{row_name(source, number, unit)}: the format is not known from its fields ({shown(value)}); {hint}"
        "name the fields as in dataset.format, or map them in dataset.columns, such as {output: answer}"
    )


def fields(row_format: Format) -> tuple[str, ...]:
    """Return the fields that every row of the format has."""
    return _FORMATS[row_format].fields


def check_method(method: Method, row_format: Format, source: str) -> None:
    """Check that the method can learn from the format of a source.

    Raises:
        DatasetError: it cannot.
    """
    wanted = methods.of(method).formats
    if row_format in wanted:
        return
    fitting = methods.learning_from(row_format)
    raise DatasetError(
        f'source "{source}" has {row_format} rows, and training.method {method} learns from {_either(wanted)} rows; '
        f"set training.method to {_either(fitting)}, or use other data"
    )


def parse(value: Any, row_format: Format, columns: Columns) -> Parsed | str:
    """Return what a row says, or the reason why it is invalid."""
    if not isinstance(value, dict):
        return "it is not a JSON object"
    return _FORMATS[row_format].parse(columns.rename(value))


def _alpaca(row: Mapping[str, Any]) -> Parsed | str:
    for name in ("instruction", "output"):
        if fault := text_fault(row.get(name), f'field "{name}"'):
            return fault
    context = _optional(row, "input")
    if isinstance(context, _Fault):
        return context.reason
    question: Message = {"role": "user", "content": row["instruction"].strip()}
    answer: Message = {"role": "assistant", "content": row["output"].strip()}
    return _conversation(row, [question, answer], context)


def _messages(row: Mapping[str, Any]) -> Parsed | str:
    found = _message_list(row.get("messages"), "messages", _ROLES)
    return found.reason if isinstance(found, _Fault) else _conversation(row, found)


def _sharegpt(row: Mapping[str, Any]) -> Parsed | str:
    found = _message_list(row.get("conversations"), "conversations", _SHAREGPT_ROLES)
    return found.reason if isinstance(found, _Fault) else _conversation(row, found)


def _prompt_completion(row: Mapping[str, Any]) -> Parsed | str:
    prompt = _side(row, "prompt", "user")
    if isinstance(prompt, _Fault):
        return prompt.reason
    completion = _side(row, "completion", "assistant")
    if isinstance(completion, _Fault):
        return completion.reason
    return _conversation(row, [*prompt, *completion])


def _text(row: Mapping[str, Any]) -> Parsed | str:
    return text_fault(row.get("text"), 'field "text"') or Parsed((), text=row["text"])


def _binary(row: Mapping[str, Any]) -> Parsed | str:
    label = row.get("label")
    if is_missing(label):
        return 'field "label" is missing or empty'
    found = _LABELS.get(str(label).strip().lower()) if isinstance(label, bool | int | float | str) else None
    if found is None:
        return 'field "label" is neither true nor false'
    parsed = _prompt_completion(row)
    return parsed if isinstance(parsed, str) else parsed._replace(label=found)


def _preference(row: Mapping[str, Any]) -> Parsed | str:
    answers: list[list[Message]] = []
    for name in ("chosen", "rejected"):
        found = _side(row, name, "assistant")
        if isinstance(found, _Fault):
            return found.reason
        answers.append(found)
    chosen, rejected = answers
    if chosen[:-1] != rejected[:-1]:
        return 'the messages of "chosen" and "rejected" differ before the last one'
    if rejected[-1]["role"] != "assistant":
        return 'the last message of "rejected" must be the assistant\'s answer'
    prompt: list[Message] = []
    # Whole conversations have the prompt in them; the field is a copy of its last question then.
    if chosen[0]["role"] == "assistant":
        side = _side(row, "prompt", "user")
        if isinstance(side, _Fault):
            return side.reason
        prompt = side
    parsed = _conversation(row, [*prompt, *chosen])
    if isinstance(parsed, str):
        return parsed
    if rejected[-1]["content"] == parsed.messages[-1]["content"]:
        return "its chosen and rejected answers are the same"
    return parsed._replace(rejected=rejected[-1]["content"])


class _Fault(NamedTuple):
    reason: str


def _conversation(row: Mapping[str, Any], messages: list[Message], context: str = "") -> Parsed | str:
    """Put the row's own system field before its messages, where they have none."""
    system = _optional(row, "system")
    if isinstance(system, _Fault):
        return system.reason
    if fault := turn_fault(messages):
        return fault
    if system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    return Parsed(tuple(messages), context)


def _optional(row: Mapping[str, Any], name: str) -> str | _Fault:
    value = row.get(name)
    if is_missing(value) or (isinstance(value, str) and value.isspace()):
        return ""
    fault = text_fault(value, f'field "{name}"')
    return _Fault(fault) if fault else str(value).strip()


def _side(row: Mapping[str, Any], name: str, role: Literal["user", "assistant"]) -> list[Message] | _Fault:
    """Return one side of a row: one text, or messages."""
    value = row.get(name)
    if _as_list(value) is not None:
        return _message_list(value, name, _SHAREGPT_ROLES)
    if fault := text_fault(value, f'field "{name}"'):
        return _Fault(fault)
    return [{"role": role, "content": str(value).strip()}]


def _message_list(
    value: Any, name: str, roles: Mapping[str, Literal["system", "user", "assistant"]]
) -> list[Message] | _Fault:
    messages = _as_list(value)
    if not messages:
        return _Fault(f'field "{name}" is not a list of messages' if value else f'field "{name}" is missing or empty')
    # "message" alone where the row has no other list.
    which = "message" if name in ("messages", "conversations") else f'message of "{name}"'
    found: list[Message] = []
    for number, message in enumerate(messages, 1):
        called = which.replace("message", f"message {number}", 1)
        if not isinstance(message, dict):
            return _Fault(f"{called} is not an object with role and content")
        role = message.get("role", message.get("from") if roles is _SHAREGPT_ROLES else None)
        if not isinstance(role, str) or role not in roles:
            return _Fault(f"{called} has an unknown role; the roles are {', '.join(roles)}")
        content = message.get("content", message.get("value") if roles is _SHAREGPT_ROLES else None)
        if fault := text_fault(content, f"the content of {called}"):
            return _Fault(fault)
        found.append({"role": roles[role], "content": str(content).strip()})
    return found


def _as_list(value: Any) -> list[Any] | None:
    """Return a list; tables have it as JSON in a cell."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


class _Format(NamedTuple):
    # Every row has these; the first row is recognized by them.
    fields: tuple[str, ...]
    parse: Callable[[Mapping[str, Any]], Parsed | str]


# Most particular first: preference data may have `messages` as well, Alpaca data `text`.
_FORMATS: dict[Format, _Format] = {
    "Preference": _Format(("chosen", "rejected"), _preference),
    "Binary": _Format(("prompt", "completion", "label"), _binary),
    "PromptCompletion": _Format(("prompt", "completion"), _prompt_completion),
    "Messages": _Format(("messages",), _messages),
    "ShareGPT": _Format(("conversations",), _sharegpt),
    "Alpaca": _Format(("instruction", "output"), _alpaca),
    "Text": _Format(("text",), _text),
}
