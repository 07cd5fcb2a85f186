"""Rows that are taken, and what they become."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.dataset_spec import DatasetFormat
from finetune_api.training_spec import Method
from finetune_trainer import methods
from finetune_trainer.data.rows import formats
from finetune_trainer.data.rows.columns import Columns
from finetune_trainer.data.rows.example import Message
from finetune_trainer.data.rows.formats import Format, Parsed
from finetune_trainer.errors import DatasetError

_SYSTEM: Message = {"role": "system", "content": "s"}
_A: Message = {"role": "user", "content": "a"}
_B: Message = {"role": "assistant", "content": "b"}
_C: Message = {"role": "assistant", "content": "c"}
_FORMATS = get_args(Format)


def _parsed(row: Any, row_format: Format, columns: dict[str, str] | None = None) -> Any:
    return formats.parse(row, row_format, Columns(columns or {}))


def _detected(row: dict[str, Any], columns: dict[str, str] | None = None) -> Format:
    return formats.detect("s", 1, row, Columns(columns or {}))


@pytest.mark.parametrize(
    ("row_format", "row", "expected"),
    [
        ("Alpaca", {"instruction": " a ", "input": "1 2\n", "output": "b"}, Parsed((_A, _B), "1 2")),
        ("Alpaca", {"instruction": "a", "output": "b", "system": "s"}, Parsed((_SYSTEM, _A, _B))),
        ("Alpaca", {"instruction": "a", "output": "b", "system": float("nan")}, Parsed((_A, _B))),
        ("Messages", {"messages": [_SYSTEM, _A, _B]}, Parsed((_SYSTEM, _A, _B))),
        ("Messages", {"messages": json.dumps([_A, _B])}, Parsed((_A, _B))),
        ("Messages", {"messages": [{**_A, "name": "x"}, _B]}, Parsed((_A, _B))),
        ("ShareGPT", {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, None),
        ("ShareGPT", {"conversations": [{"from": "user", "value": "a"}, {"from": "bot", "value": "b"}]}, None),
        ("ShareGPT", {"conversations": [{"from": "human", "value": "a"}, {"from": "model", "value": "b"}]}, None),
        ("ShareGPT", {"conversations": [_A, _B]}, None),
        (
            "ShareGPT",
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"},
            Parsed((_SYSTEM, _A, _B)),
        ),
        ("PromptCompletion", {"prompt": "a", "completion": "b"}, None),
        ("PromptCompletion", {"prompt": [_SYSTEM, _A], "completion": [_B]}, Parsed((_SYSTEM, _A, _B))),
        ("PromptCompletion", {"prompt": [_A], "completion": "b"}, None),
        ("Text", {"text": " as it is\n"}, Parsed((), text=" as it is\n")),
        ("Preference", {"prompt": "a", "chosen": "b", "rejected": "c"}, Parsed((_A, _B), rejected="c")),
        ("Preference", {"chosen": [_A, _B], "rejected": [_A, _C]}, Parsed((_A, _B), rejected="c")),
        ("Preference", {"prompt": "a", "chosen": [_A, _B], "rejected": [_A, _C]}, Parsed((_A, _B), rejected="c")),
        ("Preference", {"prompt": [_A], "chosen": [_B], "rejected": [_C]}, Parsed((_A, _B), rejected="c")),
        ("Preference", {"prompt": [_A], "chosen": "b", "rejected": "c"}, Parsed((_A, _B), rejected="c")),
        (
            "Preference",
            {"chosen": [_SYSTEM, _A, _B, _A, _B], "rejected": [_SYSTEM, _A, _B, _A, _C]},
            Parsed((_SYSTEM, _A, _B, _A, _B), rejected="c"),
        ),
        ("Binary", {"prompt": "a", "completion": "b", "label": True}, Parsed((_A, _B), label=True)),
        ("Binary", {"prompt": [_A], "completion": [_B], "label": False}, Parsed((_A, _B), label=False)),
    ],
)  # fmt: skip
def test_row_becomes_messages(row_format: Format, row: dict[str, Any], expected: Parsed | None) -> None:
    assert _parsed(row, row_format) == (expected or Parsed((_A, _B)))
    assert _detected(row) == row_format


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (1, True), (0, False), (1.0, True), (0.0, False), ("1", True), ("0", False),
        ("true", True), ("False", False), (" TRUE ", True), ("1.0", True),
    ],
)  # fmt: skip
def test_label_may_be_written_in_other_ways(label: object, expected: bool) -> None:
    assert _parsed({"prompt": "a", "completion": "b", "label": label}, "Binary").label is expected


@pytest.mark.parametrize("nothing", [{}, {"input": None}, {"input": ""}, {"input": "  "}, {"input": float("nan")}])
def test_input_may_be_left_out(nothing: dict[str, Any]) -> None:
    assert _parsed({"instruction": "a", "output": "b", **nothing}, "Alpaca") == Parsed((_A, _B))


def test_tabs_and_line_breaks_are_no_control_characters() -> None:
    assert not isinstance(_parsed({"instruction": "a\n\tb", "output": "c\r\nd"}, "Alpaca"), str)


def test_system_message_wins_over_the_system_field() -> None:
    assert _parsed({"messages": [_SYSTEM, _A, _B], "system": "x"}, "Messages").messages[0] == _SYSTEM


def test_names_are_mapped() -> None:
    columns = {"instruction": "질문", "output": "답변"}
    assert _detected({"질문": "a", "답변": "b"}, columns) == "Alpaca"
    assert _parsed({"질문": "a", "답변": "b"}, "Alpaca", columns) == Parsed((_A, _B))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"chosen": [], "rejected": [], "messages": []}, "Preference"),
        ({"instruction": "a", "output": "b", "text": "c"}, "Alpaca"),
        ({"messages": [], "prompt": "a", "text": "b"}, "Messages"),
    ],
)
def test_most_particular_format_is_taken(row: dict[str, Any], expected: Format) -> None:
    assert _detected(row) == expected


def test_formats_are_those_of_the_custom_resource() -> None:
    assert {"Auto", *_FORMATS} == set(get_args(DatasetFormat))


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("row_format", _FORMATS)
def test_each_method_takes_its_formats_only(method: Method, row_format: Format) -> None:
    fits = [name for name in get_args(Method) if row_format in methods.of(name).formats]
    if method in fits:
        formats.check_method(method, row_format, "s")
    else:
        with pytest.raises(DatasetError, match=f"set training.method to {' or '.join(fits)}, or use other data"):
            formats.check_method(method, row_format, "s")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["user", "gpt"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value"]) | st.text(max_size=3), inner)
    ),
    max_leaves=8,
)
_FIELDS = ["instruction", "input", "output", "system", "messages", "conversations", "prompt", "completion", "text",
           "chosen", "rejected", "label"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(_FIELDS), _JSON) | _JSON, st.sampled_from(_FORMATS))
def test_any_value_is_parsed_or_refused_in_words(value: Any, row_format: Format) -> None:
    parsed = _parsed(value, row_format)
    if isinstance(parsed, str):
        assert parsed
    elif row_format == "Text":
        assert parsed.text
    else:
        assert parsed.messages[-1]["role"] == "assistant"
        assert (parsed.rejected is not None) == (row_format == "Preference")
        assert (parsed.label is not None) == (row_format == "Binary")
