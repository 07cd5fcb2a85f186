"""Rows that are taken, and what is done to their text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data import rows


def test_alpaca_row_becomes_question_and_answer() -> None:
    row = {"instruction": " 더해줘 ", "input": "1 2\n", "output": "3"}
    assert rows.parse(row, "Alpaca") == (
        ({"role": "user", "content": "더해줘"}, {"role": "assistant", "content": "3"}),
        "1 2",
    )


@pytest.mark.parametrize("nothing", [{}, {"input": None}, {"input": ""}, {"input": "  "}])
def test_input_may_be_left_out(nothing: dict[str, str | None]) -> None:
    parsed = rows.parse({"instruction": "a", "output": "b", **nothing}, "Alpaca")
    assert parsed == (({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}), "")


def test_tabs_and_line_breaks_are_no_control_characters() -> None:
    assert not isinstance(rows.parse({"instruction": "a\n\tb", "output": "c\r\nd"}, "Alpaca"), str)


@given(st.recursive(st.text() | st.integers() | st.none(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_composing_twice_changes_nothing(value: object) -> None:
    once, _ = rows.compose(value)
    assert rows.compose(once) == (once, False)


def test_decomposed_hangul_is_composed_and_told() -> None:
    text = "안녕하세요"
    assert rows.compose({"instruction": unicodedata.normalize("NFD", text)}) == ({"instruction": text}, True)


@pytest.mark.parametrize(
    ("row", "expected"), [({"messages": []}, "Messages"), ({"instruction": "a"}, "Alpaca"), ({"output": "a"}, "Alpaca")]
)
def test_format_is_known_by_the_fields(row: dict[str, object], expected: str) -> None:
    assert rows.detect("s", 1, row) == expected
