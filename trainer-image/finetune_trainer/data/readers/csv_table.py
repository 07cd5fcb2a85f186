"""CSV with a header: comma, semicolon or tab; a quoted cell may have line breaks."""

import csv
from collections.abc import Iterator
from typing import TextIO

from finetune_trainer.data.readers.fences import is_fence
from finetune_trainer.data.readers.line import MAXIMUM_ROW_CHARACTERS, Line, SourceNotes
from finetune_trainer.errors import DatasetError

_DELIMITERS = ",;\t"
# csv.Error has no code: its messages for a quote that is still open at the limit or at the end of the file.
_OPEN_QUOTE = ("field larger than field limit", "unexpected end of data")


def header(line: str) -> list[str]:
    """Return the cells of a header line."""
    return _cells(line, _delimiter(line))


def read(name: str, file: TextIO, notes: SourceNotes) -> Iterator[Line]:
    """Yield the rows below the header as objects of text, numbered by the line where they start.

    `file` must be open with `newline=""`.

    Raises:
        DatasetError: the header is invalid, a line is too long, or a quoted cell does not end.
    """
    lines = _Lines(name, file)
    first = next(line for line in lines if line.strip() and not is_fence(line))
    notes.fenced = lines.fenced
    # As long as rows of the other kinds may be. The limit applies to the whole process.
    csv.field_size_limit(MAXIMUM_ROW_CHARACTERS)
    names = header(first)
    _check_header(name, names)
    before = lines.number
    reader = csv.reader(lines, delimiter=_delimiter(first), strict=True)
    while True:
        start = before + reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if str(error).startswith(_OPEN_QUOTE):
                raise DatasetError(
                    f'source "{name}", line {start}: a quoted cell of this row does not end; add the closing quote'
                ) from None
            yield Line(start, None, "its quotes are broken: a quote inside a quoted cell must be written twice")
            continue
        if lines.fenced and len(cells) == 1 and is_fence(cells[0]):
            continue
        # Spreadsheets keep rows that were cleared.
        if not any(map(str.strip, cells)):
            continue
        if len(cells) == len(names):
            yield Line(start, dict(zip(names, cells, strict=True)))
        else:
            yield Line(start, None, f"it has {len(cells)} cells, and the header has {len(names)}")


class _Lines:
    """The lines of a file, each of limited length."""

    def __init__(self, name: str, file: TextIO) -> None:
        self._name = name
        self._file = file
        self.number = 0
        # Whether the first line that is not blank is a fence.
        self.fenced = False
        self._blank = True

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAXIMUM_ROW_CHARACTERS + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > MAXIMUM_ROW_CHARACTERS:
            raise DatasetError(
                f'source "{self._name}", line {self.number}: it is longer than {MAXIMUM_ROW_CHARACTERS:,} characters; '
                "write one example per row"
            )
        if self._blank and line.strip():
            self._blank = False
            self.fenced = is_fence(line)
        return line


def _delimiter(line: str) -> str:
    return max(_DELIMITERS, key=lambda delimiter: len(_cells(line, delimiter)))


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        cells = [line]
    return [cell.strip() for cell in cells] or [""]


def _check_header(name: str, names: list[str]) -> None:
    for number, column in enumerate(names, 1):
        if column and column in names[: number - 1]:
            raise DatasetError(
                f'source "{name}": columns {names.index(column) + 1} and {number} of its header have the same name; '
                "rename one"
            )
