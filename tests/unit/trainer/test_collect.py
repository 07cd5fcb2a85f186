"""Several sources as one dataset."""

from pathlib import Path

from finetune_trainer.data.collect import collect
from finetune_trainer.data.source_file import SourceFile
from tests.support.trainer_job import write_rows

_ALPACA = {"instruction": "a", "output": "b"}
_MESSAGES = {"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}


def test_each_source_has_a_format_of_its_own(tmp_path: Path) -> None:
    one = write_rows(tmp_path / "one", [_ALPACA])
    two = write_rows(tmp_path / "two", [_MESSAGES])
    found = collect([SourceFile("one", one), SourceFile("two", two)], {}, "SFT")
    assert [(e.source, e.line, e.row_id) for e in found.examples] == [("one", 1, 0), ("two", 1, 1)]


def test_duplicates_are_found_across_sources_and_spellings(tmp_path: Path) -> None:
    one = write_rows(tmp_path / "one", [_ALPACA])
    two = write_rows(tmp_path / "two", [_ALPACA | {"instruction": " a\n"}, _ALPACA | {"output": "c"}])
    found = collect([SourceFile("one", one), SourceFile("two", two)], {}, "SFT")
    assert (len(found.examples), found.duplicates) == (2, 1)


def test_blank_lines_count_as_lines_but_not_as_rows(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_text('{"instruction": "a", "output": "b"}\n\n{"instruction": "c", "output": "d"}\n')
    found = collect([SourceFile("one", path)], {}, "SFT")
    assert [(e.line, e.row_id) for e in found.examples] == [(1, 0), (3, 1)]


def test_byte_order_mark_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(b'\xef\xbb\xbf{"instruction": "a", "output": "b"}\r\n')
    assert len(collect([SourceFile("one", path)], {}, "SFT").examples) == 1


def test_invalid_rows_are_kept_apart_with_their_reasons(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "one", [_ALPACA, {"instruction": "a"}])
    found = collect([SourceFile("one", path)], {}, "SFT")
    assert found.faults == ['source "one", line 2: field "output" is missing or empty']
    assert (found.rows, len(found.examples)) == (2, 1)
