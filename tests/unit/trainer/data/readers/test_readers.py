"""Files of every kind, recognized by their bytes."""

import contextlib
import csv
import io
import json
import time
import tracemalloc
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_trainer.data import readers
from finetune_trainer.data.readers import Line, SourceNotes
from finetune_trainer.data.readers.line import UNREADABLE
from finetune_trainer.data.rows import formats
from finetune_trainer.data.rows.columns import Columns
from finetune_trainer.errors import DatasetError
from finetune_trainer.sources.dataset_file import local_file

_ONE = {"instruction": "질문 1", "output": "답변 1"}
_TWO = {"instruction": "질문 2", "output": "답변 2"}
_ROWS = [_ONE, _TWO]


def _json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


def _csv(rows: list[dict[str, Any]], **options: Any) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), **options)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readers") / "file"


def _read(path: Path, data: bytes | str) -> tuple[list[Line], SourceNotes]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    notes = SourceNotes()
    return list(readers.read(local_file("s", path), notes)), notes


def _values(path: Path, data: bytes | str) -> list[Any]:
    return [line.value for line in _read(path, data)[0]]


def _message(path: Path, data: bytes | str) -> str:
    with pytest.raises(DatasetError) as refused:
        _read(path, data)
    return refused.value.message


_LINES = "".join(_json(row) + "\n" for row in _ROWS)


@pytest.mark.parametrize(
    ("data", "kind", "numbers"),
    [
        (_LINES, "JSON Lines", [1, 2]),
        (_LINES.replace("\n", "\r\n"), "JSON Lines", [1, 2]),
        ("\n" + _LINES.replace("\n", "\n\n"), "JSON Lines", [2, 4]),
        (_json(_ROWS), "JSON", [1, 2]),
        (_json(_ROWS, indent=2), "JSON", [1, 2]),
        (f" \n{_json(_ROWS)}\n", "JSON", [1, 2]),
        ("\n".join(_json(row, indent=2) for row in _ROWS), "JSON", [1, 2]),
        (_json(_ONE) + _json(_TWO, indent=1), "JSON", [1, 2]),
        (_json(_ROWS[:1]) + "\n" + _json(_ROWS[1:]), "JSON", [1, 2]),
        (_json({"data": _ROWS}), "JSON", [1, 2]),
        (_json({"version": 1.5, "name": "a \"b\"", "rows": _ROWS, "count": 2}, indent=1), "JSON", [1, 2]),
        (_csv(_ROWS), "CSV", [2, 3]),
        (_csv(_ROWS, delimiter=";"), "CSV", [2, 3]),
        (_csv(_ROWS, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n"), "CSV", [2, 3]),
        (_parquet(_ROWS), "Parquet", [1, 2]),
    ],
)  # fmt: skip
def test_kind_is_recognized_by_the_bytes(path: Path, data: bytes | str, kind: str, numbers: list[int]) -> None:
    lines, notes = _read(path, data)
    assert ([line.value for line in lines], notes.kind) == (_ROWS, kind)
    assert [line.number for line in lines] == numbers
    assert notes.unit == ("row" if kind in ("JSON", "Parquet") else "line")
    assert notes.warnings("s") == []


@pytest.mark.parametrize(
    "data",
    [
        f"```json\n{_LINES}```\n",
        f"```\n{_LINES}```",
        f"\n```jsonl\n{_LINES}\n```\n",
        "".join(f"```json\n{_json(row)}\n```\n\n" for row in _ROWS),
        "".join(f"```json {_json(row)} ```\n" for row in _ROWS),
        f"```json\n{_json(_ROWS, indent=2)}\n```\n",
        f"```json\n{_json({'rows': _ROWS})}\n```\n",
        "".join(f"```json\n{_json(row, indent=2)}\n```\n" for row in _ROWS),
        "".join(f"```json\n{_json([row], indent=2)}\n```\n" for row in _ROWS),
        f"```csv\n{_csv(_ROWS)}```\n",
    ],
)
def test_fences_are_left_out_and_reported(path: Path, data: str) -> None:
    lines, notes = _read(path, data)
    assert [line.value for line in lines] == _ROWS
    assert notes.warnings("s") == ['FencesRemoved: source "s" has Markdown fences (```), which were removed']


def test_fence_inside_an_answer_stays(path: Path) -> None:
    row = {"instruction": "a", "output": "```json\n{}\n```"}
    for data in (_json(row), _json([row]), _csv([row]), _parquet([row])):
        lines, notes = _read(path, data)
        assert ([line.value for line in lines], notes.fenced) == ([row], False)


@pytest.mark.parametrize("codec", ["cp949", "utf-16"])
@pytest.mark.parametrize("data", [_LINES, _json(_ROWS), _csv(_ROWS)])
def test_other_encodings_are_read_and_reported(path: Path, data: str, codec: str) -> None:
    lines, notes = _read(path, data.encode(codec))
    assert [line.value for line in lines] == _ROWS
    name = {"cp949": "CP949 (EUC-KR)", "utf-16": "UTF-16"}[codec]
    assert notes.warnings("s") == [f'EncodingConverted: source "s" is {name} text and was read as such']


def test_byte_order_mark_is_no_text(path: Path) -> None:
    for data in (_LINES, _json(_ROWS), _csv(_ROWS)):
        assert _values(path, data.encode("utf-8-sig")) == _ROWS


def test_csv_rows_are_numbered_by_the_line_where_they_start(path: Path) -> None:
    lines, _ = _read(path, 'text,id\n"a\nb",1\n\n"c ""d""\r\ne",2\nf,3\n')
    assert [(line.number, line.value["text"]) for line in lines] == [(2, "a\nb"), (5, 'c "d"\r\ne'), (7, "f")]


def test_empty_rows_of_a_table_are_blank_lines(path: Path) -> None:
    lines, _ = _read(path, "instruction,output\na,b\n,\n , \nc,d\n,,,\n")
    assert [line.number for line in lines] == [2, 5]


@pytest.mark.parametrize("row", ["```" + "a" * 200_000 + " b", "```json " + " " * 200_000 + "b"])
def test_fence_that_is_not_closed_is_searched_once(path: Path, row: str) -> None:
    started = time.process_time()
    lines, _ = _read(path, f'{{"text": "a"}}\n{row}\n')
    assert [line.fault is None for line in lines] == [True, False]
    assert time.process_time() - started < 5


@pytest.mark.parametrize("depth", [700, 950, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}")])
def test_row_of_too_many_brackets_is_a_fault_of_its_own(path: Path, opening: str, closing: str, depth: int) -> None:
    """How many are too many depends on the version of Python."""
    lines, _ = _read(path, f'{{"text": "a"}}\n{{"text": {opening * depth}1{closing * depth}}}\n{{"text": "b"}}\n')
    assert [line.fault for line in lines] in ([None, UNREADABLE, None], [None, None, None])


def test_csv_with_one_column_and_an_index_are_read(path: Path) -> None:
    assert _values(path, "text\na\nb\n") == [{"text": "a"}, {"text": "b"}]
    assert _values(path, "\ttext\n0\ta\n") == [{"": "0", "text": "a"}]


def test_csv_row_with_wrong_quotes_does_not_take_the_next_with_it(path: Path) -> None:
    lines, _ = _read(path, 'instruction,output\n"a" b,c\nd,e\n')
    assert [(line.number, line.value, bool(line.fault)) for line in lines] == [
        (2, None, True),
        (3, {"instruction": "d", "output": "e"}, False),
    ]


def test_json_lines_with_a_list_of_objects_first_are_no_wrapper(path: Path) -> None:
    row = {"meta": [{"a": 1}], **_ONE}
    assert _values(path, _json(row) + "\n" + _json(row) + "\n") == [row, row]
    assert _values(path, _json({"id": 1, "conversations": [{"from": "human"}]})) == [
        {"id": 1, "conversations": [{"from": "human"}]}
    ]


def test_comma_after_the_last_row_is_taken(path: Path) -> None:
    assert _values(path, f"[{_json(_ONE)},\n]") == [_ONE]


def test_line_separators_inside_text_break_no_line(path: Path) -> None:
    row = {"instruction": "a\u2028b\u0085c", "output": "d"}
    assert _values(path, _json(row) + "\n" + _json(row)) == [row, row]


def test_composed_rows_are_counted(path: Path) -> None:
    nfd = unicodedata.normalize("NFD", "가")
    for data in (
        f'{{"text": "가"}}\n{{"text": "{nfd}"}}',
        '[{"text": "가"}, {"text": "\\u1100\\u1161"}]',
        f"text\n가\n{nfd}",
    ):
        lines, notes = _read(path, data)
        assert ([line.value for line in lines], notes.composed) == ([{"text": "가"}] * 2, 1)


def test_nothing_and_nan_of_pandas_are_missing(path: Path) -> None:
    for data in (
        '{"instruction": "a", "input": NaN, "output": "b"}',
        '[{"instruction": "a", "input": null, "output": "b"}]',
        "instruction,input,output\na,,b\n",
        _parquet([{"instruction": "a", "input": float("nan"), "output": "b"}]),
    ):
        parsed = formats.parse(_values(path, data)[0], "Alpaca", Columns({}))
        assert not isinstance(parsed, str)
        assert parsed.context == ""


_TOO_DEEP = "it has a number that is too long, or brackets that are nested too deeply; correct it"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ('[{"text": "a"}', "row 1 (line 1): the file ends here, before the closing bracket; upload the whole file"),
        ('[{"text": "a"},\n', "row 1 (line 2): the file ends here, before the closing bracket; upload the whole file"),
        (
            '[\n{"text": "a"}\n{"text": "b"}]',
            "row 1 (line 3): a comma or the closing bracket is missing after it; add it",
        ),
        (
            '[{"text": "a"},\n{"text": "b}]',
            "row 2 (line 2): the file ends in the middle of it; "
            "add the missing quote or bracket, or upload the whole file",
        ),
        ('[{"text": "a"},\n{"text" "b"}]', "row 2 (line 2): it is not JSON: Expecting ':' delimiter; correct it"),
        ('[{"text": "a"},\n,]', "row 2 (line 2): it is not JSON: Expecting value; correct it"),
        ("[" * 100_000, f"row 1 (line 1): {_TOO_DEEP}"),
        (f'[{{"label": {"1" * 5000}}}]', f"row 1 (line 1): {_TOO_DEEP}"),
    ],
)
def test_array_that_breaks_is_refused_with_row_and_line(path: Path, data: str, sentence: str) -> None:
    assert _message(path, data) == f'source "s", {sentence}'


def _big_rows(count: int) -> Iterator[dict[str, str]]:
    for number in range(count):
        yield {"instruction": f"질문 {number}", "output": "가나다라마바사아" * 40}


@pytest.mark.parametrize("kind", ["lines", "array", "csv"])
def test_memory_does_not_grow_with_the_file(path: Path, kind: str) -> None:
    with path.open("w", newline="") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, ["instruction", "output"])
            writer.writeheader()
            writer.writerows(_big_rows(20_000))
        else:
            file.write("[" if kind == "array" else "")
            separator = "," if kind == "array" else "\n"
            for number, row in enumerate(_big_rows(20_000)):
                file.write((separator if number else "") + _json(row))
            file.write("]" if kind == "array" else "")
    assert path.stat().st_size > 19_000_000
    tracemalloc.start()
    count = sum(1 for _ in readers.read(local_file("s", path), SourceNotes()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    # Half of it is the beginning of the file, which tells the kind.
    assert peak < 14_000_000


_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n가,;\"'`[{"), min_size=1, max_size=20
)
_MESSAGES = st.tuples(_TEXT, _TEXT).map(
    lambda pair: [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
)
_TABLES = st.one_of(
    st.lists(st.fixed_dictionaries({"instruction": _TEXT, "input": _TEXT | st.just(""), "output": _TEXT}), min_size=1),
    st.lists(st.fixed_dictionaries({"prompt": _TEXT, "completion": _TEXT, "label": st.booleans()}), min_size=1),
    st.lists(st.fixed_dictionaries({"chosen": _MESSAGES, "rejected": _MESSAGES}), min_size=1),
    st.lists(st.fixed_dictionaries({"messages": _MESSAGES, "system": _TEXT}), min_size=1),
    st.lists(st.fixed_dictionaries({"text": _TEXT}), min_size=1),
)


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    return {k: _json(v) if isinstance(v, list) else v for k, v in row.items()}


@settings(max_examples=60, deadline=None)
@given(_TABLES)
def test_rows_read_back_as_the_same_from_every_kind(path: Path, rows: list[dict[str, Any]]) -> None:
    files: list[bytes | str] = [
        "".join(_json(row) + "\n" for row in rows),
        _json(rows),
        _json(rows, indent=1),
        _json({"data": rows}),
        _csv([_cells(row) for row in rows], quoting=csv.QUOTE_ALL),
        _csv([_cells(row) for row in rows], delimiter=";", quoting=csv.QUOTE_NONNUMERIC),
        _parquet(rows),
    ]
    found = []
    for data in files:
        values = _values(path, data)
        row_format = formats.detect("s", 1, values[0], Columns({}))
        found.append([formats.parse(value, row_format, Columns({})) for value in values])
    assert len(found[0]) == len(rows)
    for other in found[1:]:
        assert other == found[0]


_STARTS = [
    b"", b"[", b"{", b'[{"a": ', b'{"a": 1}\n', b"a,b\n", b'a,b\n"', b"PAR1", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0",
    b"\xef\xbb\xbf", b"```json\n", b'{"data": [{', b"text\n", b"PAR1\x15\x04", "가,나\n".encode("cp949"),
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(_STARTS),
    st.lists(st.binary(max_size=8) | st.sampled_from([b"\n", b"```", b'"', b"[", b"]", b"{}", b",", b"1", b"PAR1"])),
)
def test_any_bytes_are_rows_or_a_dataset_error(path: Path, start: bytes, rest: list[bytes]) -> None:
    with contextlib.suppress(DatasetError):
        lines, _ = _read(path, start + b"".join(rest))
        assert all((line.value is None) or (line.fault is None) for line in lines)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_parquet_is_rows_or_a_dataset_error(path: Path, data: st.DataObject) -> None:
    whole = bytearray(_parquet([_ONE, _TWO]))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(4, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(whole), len(whole) - 8, 100]))
    with contextlib.suppress(DatasetError):
        _read(path, bytes(whole[:cut]))
