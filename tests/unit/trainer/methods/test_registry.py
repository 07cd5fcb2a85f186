"""What the rest of the trainer asks of a training method."""

from pathlib import Path
from typing import get_args

import pytest

from finetune_api.memory import Footprint
from finetune_api.training_spec import Method
from finetune_trainer import methods
from finetune_trainer.data.rows.formats import Format
from finetune_trainer.errors import GuardError
from finetune_trainer.methods.preference import PreferenceRow
from finetune_trainer.methods.sft import SFTRow


def test_every_method_of_the_custom_resource_is_registered() -> None:
    for name in get_args(Method):
        assert methods.of(name).formats


@pytest.mark.parametrize("row_format", get_args(Format))
def test_every_format_has_a_method_that_learns_from_it(row_format: Format) -> None:
    assert methods.learning_from(row_format)


@pytest.mark.parametrize(("row_format", "method"), [("Alpaca", "SFT"), ("Preference", "DPO"), ("Binary", "KTO")])
def test_each_format_has_a_usual_method(row_format: Format, method: Method) -> None:
    assert methods.learning_from(row_format)[0] == method


@pytest.mark.parametrize(
    ("method", "footprint"),
    [
        ("SFT", Footprint()),
        ("DPO", Footprint(sequences=2)),
        ("ORPO", Footprint(sequences=2, all_logits=True)),
        ("KTO", Footprint(all_logits=True)),
    ],
)
def test_pairs_are_two_sequences_and_orpo_and_kto_hold_all_logits(method: Method, footprint: Footprint) -> None:
    assert methods.of(method).footprint == footprint


@pytest.mark.parametrize(("method", "compiled"), [("SFT", True), ("ORPO", True), ("DPO", False), ("KTO", False)])
def test_only_policy_and_reference_are_kept_from_being_compiled_apart(method: Method, compiled: bool) -> None:
    assert methods.of(method).compared_with_reference is not compiled


def test_the_row_that_fills_up_a_step_teaches_nothing() -> None:
    row = methods.of("SFT").filler(SFTRow(3, [5, 6, 2], [0, 1, 1]))
    assert row.supervised == 0
    assert not any(row.completion_mask)


def test_a_method_without_such_a_row_says_so() -> None:
    with pytest.raises(GuardError, match="DPO has no row that teaches nothing"):
        methods.of("DPO").filler(PreferenceRow(3, [5], [6, 2], [7, 2]))


def test_only_methods_know_what_a_method_is() -> None:
    """Outside of `methods`, nothing asks which method it is, and nothing knows a row class."""
    package = Path(methods.__file__).parent
    words = ["SFTRow", "PreferenceRow", "BinaryRow", *(f'"{name}"' for name in get_args(Method))]
    known = {
        f"{path.name}: {word}"
        for path in package.parent.rglob("*.py")
        if package not in path.parents
        for word in words
        if word in path.read_text(encoding="utf-8")
    }
    assert known == set()
