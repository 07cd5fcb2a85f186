"""The rows that prepare wrote, by method."""

from pathlib import Path
from typing import Any

import pytest

from finetune_api.training_spec import Method
from finetune_trainer import methods
from finetune_trainer.methods.kto import BinaryRow
from finetune_trainer.methods.preference import PreferenceRow
from finetune_trainer.methods.rows import Row
from finetune_trainer.methods.sft import SFTRow

SFT = SFTRow(3, [5, 6, 2], [0, 1, 1])
PAIR = PreferenceRow(3, [5, 6], [7, 2], [8, 9, 2])
BINARY = BinaryRow(3, [5, 6], [7, 2], False)


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("method", "columns", "row"),
    [
        ("SFT", {"input_ids": [[5, 6, 2]], "completion_mask": [[0, 1, 1]]}, SFT),
        ("DPO", {"prompt_ids": [[5, 6]], "chosen_ids": [[7, 2]], "rejected_ids": [[8, 9, 2]]}, PAIR),
        ("ORPO", {"prompt_ids": [[5, 6]], "chosen_ids": [[7, 2]], "rejected_ids": [[8, 9, 2]]}, PAIR),
        ("KTO", {"prompt_ids": [[5, 6]], "completion_ids": [[7, 2]], "label": [False]}, BINARY),
    ],
)
def test_each_method_has_its_columns(tmp_path: Path, method: Method, columns: dict[str, list[Any]], row: Row) -> None:
    assert methods.of(method).read(write(tmp_path / "rows.parquet", {"row_id": [3], **columns})) == [row]


@pytest.mark.parametrize(
    ("method", "types"),
    [
        ("SFT", {"input_ids": "list<int32>", "completion_mask": "list<int8>"}),
        ("DPO", {"prompt_ids": "list<int32>", "chosen_ids": "list<int32>", "rejected_ids": "list<int32>"}),
        ("ORPO", {"prompt_ids": "list<int32>", "chosen_ids": "list<int32>", "rejected_ids": "list<int32>"}),
        ("KTO", {"prompt_ids": "list<int32>", "completion_ids": "list<int32>", "label": "bool"}),
    ],
)
def test_the_files_of_a_method_keep_their_columns(method: Method, types: dict[str, str]) -> None:
    schema = methods.of(method).schema()
    found = {field.name: str(field.type).replace("item: ", "").replace("element: ", "") for field in schema}
    assert list(found.items()) == [*types.items(), ("row_id", "int64")]


@pytest.mark.parametrize(("row", "length", "supervised"), [(SFT, 3, 2), (PAIR, 5, 5), (BINARY, 4, 2)])
def test_the_length_is_that_of_the_longest_sequence(row: Row, length: int, supervised: int) -> None:
    assert (row.length, row.supervised) == (length, supervised)


@pytest.mark.parametrize(
    ("row", "ends"),
    [
        (SFT, True),
        (SFTRow(0, [5, 2], [1, 0]), False),
        (PAIR, True),
        (PreferenceRow(0, [5], [2], [7]), False),
        (PreferenceRow(0, [5], [7], [2]), False),
        (BINARY, True),
        (BinaryRow(0, [2], [7], True), False),
    ],
)
def test_every_answer_has_to_end_on_a_stop_token(row: Row, ends: bool) -> None:
    assert row.ends_on({2}) is ends


@pytest.mark.parametrize(
    ("row", "ids", "mask", "is_good"),
    [
        (SFT, [5, 6, 2], [0, 1, 1], True),
        (PAIR, [5, 6, 7, 2], [0, 0, 1, 1], True),
        (BINARY, [5, 6, 7, 2], [0, 0, 1, 1], False),
        (BinaryRow(0, [5], [7], True), [5, 7], [0, 1], True),
    ],
)
def test_each_row_has_one_answer_to_show(row: Row, ids: list[int], mask: list[int], is_good: bool) -> None:
    assert (row.sequence.input_ids, row.sequence.completion_mask, row.is_good) == (ids, mask, is_good)
