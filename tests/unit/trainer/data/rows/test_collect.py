"""Several sources as one dataset."""

from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.data.rows import chunk, collect, disk_buffer
from finetune_trainer.data.rows.collect import Collected
from finetune_trainer.errors import DatasetError
from finetune_trainer.sources.dataset_file import local_file
from tests.support.trainer_job import alpaca_rows, write_rows

_ALPACA = {"instruction": "a", "output": "b"}
_MESSAGES = {"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}
_PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}


def _collect(*paths: Path, **options: Any) -> Collected:
    method = options.pop("method", "SFT")
    return collect.collect([local_file(path.name, path) for path in paths], {}, method, **options)


def _where(found: Collected) -> list[tuple[str, int, int]]:
    names = [found.sources[i].name for i in found.table.column("source")]
    numbers, ids = found.table.column("number"), found.table.column("row_id")
    return list(zip(names, numbers.tolist(), ids.tolist(), strict=True))


def test_each_source_has_a_format_of_its_own(tmp_path: Path) -> None:
    one = write_rows(tmp_path / "one", [_ALPACA])
    two = write_rows(tmp_path / "two", [_MESSAGES])
    found = _collect(one, two)
    assert [s.row_format for s in found.sources] == ["Alpaca", "Messages"]
    assert _where(found) == [("one", 1, 0), ("two", 1, 1)]


def test_blank_lines_count_as_lines_but_not_as_rows(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_text('{"instruction": "a", "output": "b"}\n\n{"instruction": "c", "output": "d"}\n')
    assert _where(_collect(path)) == [("one", 1, 0), ("one", 3, 1)]


def test_byte_order_mark_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(b'\xef\xbb\xbf{"instruction": "a", "output": "b"}\r\n')
    assert len(_collect(path).table) == 1


def test_invalid_rows_are_kept_apart_with_their_reasons(tmp_path: Path) -> None:
    found = _collect(write_rows(tmp_path / "one", [_ALPACA, {"instruction": "a"}, [], _ALPACA]))
    assert [(p.number, p.reason) for p in found.invalid_places] == [
        (2, 'field "output" is missing or empty'),
        (3, "it is not a JSON object"),
    ]
    assert (found.rows, found.invalid) == (4, 2)
    assert _where(found) == [("one", 1, 0), ("one", 4, 3)]


def test_two_answers_that_are_the_same_are_no_preference(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "one", [_PAIR, _PAIR | {"rejected": " b "}])
    found = _collect(path, method="DPO")
    assert [p.reason for p in found.invalid_places] == ["its chosen and rejected answers are the same"]


def test_rows_are_refused_that_the_method_cannot_learn_from(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"training\.method SFT learns from"):
        _collect(write_rows(tmp_path / "one", [_PAIR]))


def test_without_a_method_the_first_source_decides(tmp_path: Path) -> None:
    assert _collect(write_rows(tmp_path / "one", [_PAIR]), method=None).method == "DPO"


def test_users_names_of_fields_are_taken_once(tmp_path: Path) -> None:
    """With names swapped, a second renaming would swap them back."""
    path = write_rows(tmp_path / "one", [{"instruction": "답", "output": "질문"}])
    folder = tmp_path / "spool"
    folder.mkdir()
    columns = {"instruction": "output", "output": "instruction"}
    collect.collect([local_file("one", path)], columns, "SFT", spool=folder)
    (example,) = disk_buffer.read(folder)
    assert [m["content"] for m in example.messages] == ["질문", "답"]


def test_names_need_not_be_those_of_every_source(tmp_path: Path) -> None:
    one = write_rows(tmp_path / "one", [{"질문": "a", "참고": "i", "답변": "b"}])
    two = write_rows(tmp_path / "two", [{"질문": "c", "답변": "d"}])
    three = write_rows(tmp_path / "three", [_MESSAGES])
    columns = {"instruction": "질문", "input": "참고", "output": "답변"}
    found = collect.collect([local_file(p.name, p) for p in (three, one, two)], columns, "SFT")
    assert [s.row_format for s in found.sources] == ["Messages", "Alpaca", "Alpaca"]


def test_name_that_no_source_has_is_refused(tmp_path: Path) -> None:
    sources = [local_file(n, write_rows(tmp_path / n, [_ALPACA])) for n in ("one", "two")]
    with pytest.raises(DatasetError, match=r'source "one": dataset\.columns maps input to "참고", and no row has that'):
        collect.collect(sources, {"input": "참고"}, "SFT")


@pytest.mark.parametrize("row", [_ALPACA | {"input": "x"}, _MESSAGES, {"text": "t"}, _PAIR, {**_PAIR, "label": True}])
def test_spool_gives_back_what_was_read(tmp_path: Path, row: dict[str, Any]) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    path = write_rows(tmp_path / "one.jsonl", [row])
    _collect(path, spool=folder, method=None)
    (example,) = disk_buffer.read(folder)
    said = [m["content"] for m in example.messages]
    assert (example.source, example.line, example.row_id, example.unit) == ("one.jsonl", 1, 0, "line")
    assert said or example.text == "t"
    assert (example.context, example.rejected) == (row.get("input", ""), row.get("rejected"))


def test_workers_find_what_one_process_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*alpaca_rows(50), {"instruction": "a"}, *alpaca_rows(50)]
    path = write_rows(tmp_path / "one", rows)
    monkeypatch.setattr(collect, "MAXIMUM_ROWS", 7)
    folders = {}
    for limit in (1, 1 << 30):
        monkeypatch.setattr(collect, "_WORTH_WORKERS_BYTES", limit)
        folder = tmp_path / f"spool-{limit}"
        folder.mkdir()
        found = _collect(path, spool=folder)
        table = found.table
        folders[limit] = (
            _where(found),
            found.invalid_places,
            table.signature.tolist(),
            {name: table.column(name).tolist() for name in ("exact", "prompt", "answer", "flags")},
            list(disk_buffer.read(folder)),
        )
    assert folders[1] == folders[1 << 30]


def test_long_rows_make_small_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def look(given: chunk.Chunk) -> chunk.Looked:
        sizes.append(len(given.lines))
        return chunk.look(given)

    monkeypatch.setattr(collect, "look", look)
    monkeypatch.setattr(collect, "MAXIMUM_CHARACTERS", 1000)
    _collect(write_rows(tmp_path / "one", [{"instruction": "a" * 400, "output": "b"}] * 6))
    assert sizes == [3, 3]
