"""What is done to the text of a row."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.readers.unicode import compose
from finetune_trainer.data.rows import text_rules

_VALUES = st.recursive(st.text() | st.integers() | st.none(), lambda v: st.lists(v) | st.dictionaries(st.text(), v))


@given(_VALUES)
def test_composing_twice_changes_nothing(value: object) -> None:
    once, _ = compose(value)
    assert compose(once) == (once, False)


@given(st.text(), st.text())
def test_composing_is_nfc_at_any_depth(one: str, two: str) -> None:
    composed, changed = compose({"a": [one, {"b": two}]})
    assert composed == {"a": [unicodedata.normalize("NFC", one), {"b": unicodedata.normalize("NFC", two)}]}
    assert changed == (composed != {"a": [one, {"b": two}]})


def test_decomposed_hangul_is_composed_and_reported() -> None:
    decomposed = unicodedata.normalize("NFD", "질문")
    assert compose({decomposed: decomposed}) == ({"질문": "질문"}, True)


@given(st.text(min_size=1))
def test_text_is_at_fault_exactly_for_controls_and_half_characters(text: str) -> None:
    def refused(character: str) -> bool:
        category = unicodedata.category(character)
        return category == "Cs" or (category == "Cc" and character not in "\t\r\n")

    fault = text_rules.text_fault(f"x{text}", "it")
    assert (fault is not None) == any(map(refused, text))


@pytest.mark.parametrize("nothing", [None, "", float("nan"), " \t\n", "\u3000"])
def test_nothing_is_missing(nothing: object) -> None:
    assert text_rules.text_fault(nothing, "it") == "it is missing or empty"


@pytest.mark.parametrize("value", [0, 1.5, True, [], {}])
def test_other_values_are_no_text(value: object) -> None:
    assert text_rules.text_fault(value, "it") == "it is not text"
