"""Reads a dataset source of any kind, row by row and in constant memory."""

from collections.abc import Iterator

from finetune_trainer.data.readers import csv_table, encodings, json_document, json_lines, kind, parquet
from finetune_trainer.data.readers.line import UNREADABLE, WANTED, Line, SourceNotes
from finetune_trainer.data.readers.unicode import compose
from finetune_trainer.errors import DatasetError
from finetune_trainer.sources.dataset_file import SourceFile

__all__ = ["Line", "SourceNotes", "read"]


def read(source: SourceFile, notes: SourceNotes) -> Iterator[Line]:
    """Yield the rows of a source, whatever its file name; `notes` is complete after the last row.

    Raises:
        DatasetError: the file as a whole cannot be read, or has no rows.
    """
    empty = True
    for line in _read(source, notes):
        empty = False
        try:
            value, changed = compose(line.value)
        except RecursionError:
            line = Line(line.number, None, UNREADABLE)
            changed = False
        if changed:
            notes.composed += 1
            line = Line(line.number, value, line.fault)
        yield line
    if empty:
        raise DatasetError(f'source "{source.name}" has no rows; it must be {WANTED}')


def _read(source: SourceFile, notes: SourceNotes) -> Iterator[Line]:
    if kind.is_parquet(source.name, source.path):
        notes.kind = "Parquet"
        yield from parquet.read(source.name, source.path)
        return
    encoding = encodings.detect(source.name, source.path)
    notes.encoding = encoding.name
    with encoding.open(source.path) as file:
        notes.kind = kind.of_text(source.name, file)
    # The csv module needs line ends as they are, because cells may contain them.
    with encoding.open(source.path, newline="" if notes.kind == "CSV" else None) as file:
        match notes.kind:
            case "CSV":
                yield from csv_table.read(source.name, file, notes)
            case "JSON":
                yield from json_document.read(source.name, file, notes)
            case _:
                yield from json_lines.read(source.name, file, notes)
