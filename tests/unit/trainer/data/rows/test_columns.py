"""The user's names of the fields."""

import pytest

from finetune_api.dataset_spec import COLUMNS
from finetune_trainer.data.rows.columns import Columns, in_users_names, shown
from finetune_trainer.errors import DatasetError


def test_fields_are_renamed_and_others_stay() -> None:
    columns = Columns({"instruction": "질문", "output": "답변"})
    assert columns.rename({"질문": "a", "답변": "b", "id": 1}) == {"instruction": "a", "output": "b", "id": 1}


def test_names_can_be_exchanged() -> None:
    columns = Columns({"prompt": "completion", "completion": "prompt"})
    assert columns.rename({"prompt": "a", "completion": "b"}) == {"prompt": "b", "completion": "a"}


def test_mapped_field_wins_over_one_that_has_our_name() -> None:
    assert Columns({"output": "답변"}).rename({"output": "old", "답변": "new"}) == {"output": "new"}


def test_field_of_a_few_rows_counts_as_there() -> None:
    columns = Columns({"input": "참고"})
    columns.rename({"참고": "a"})
    columns.rename({})
    columns.require("s", COLUMNS)


def test_source_that_has_our_own_name_needs_no_mapping() -> None:
    columns = Columns({"output": "답변"})
    assert columns.rename({"output": "a"}) == {"output": "a"}
    columns.require("s", COLUMNS)


def test_name_that_no_row_has_is_refused_with_those_that_exist() -> None:
    columns = Columns({"output": "답"})
    columns.rename({"질문": "a", "답변": "b"})
    with pytest.raises(DatasetError) as refused:
        columns.require("s", COLUMNS)
    assert refused.value.message == (
        'source "s": dataset.columns maps output to "답", and no row has that field; the fields are 질문, 답변'
    )


@pytest.mark.parametrize("data", ["오늘은 하체 운동을 했다", "Hello, how are you?", "a" * 33, "a\nb"])
def test_what_looks_like_data_is_not_shown_as_a_name(data: str) -> None:
    assert shown([data, "output"]) == "(not a name), output"


def test_long_lists_of_names_are_cut() -> None:
    assert shown([f"c{i}" for i in range(13)]) == "c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, ..."


def test_a_mapped_field_has_the_users_name() -> None:
    assert (
        in_users_names('field "output" is missing or empty', {"output": "답변"}) == 'field "답변" is missing or empty'
    )


def test_other_fields_keep_their_names() -> None:
    assert in_users_names('field "output" is not text', {"input": "질문"}) == 'field "output" is not text'
