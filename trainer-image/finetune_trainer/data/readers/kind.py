"""Detects the kind of a file from its bytes, not from its name."""

import itertools
import json
from pathlib import Path
from typing import Literal, TextIO

from finetune_api.dataset_spec import COLUMNS
from finetune_trainer.data.readers import csv_table
from finetune_trainer.data.readers.fences import is_fence
from finetune_trainer.data.readers.json_document import wrapped_list
from finetune_trainer.data.readers.line import WANTED
from finetune_trainer.errors import DatasetError

_HEAD_CHARACTERS = 2**20
_PARQUET = b"PAR1"
# The first bytes of other files that people upload by mistake.
_SIGNATURES = {
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a ZIP archive or an Excel file",
    b"\xd0\xcf\x11\xe0": "an old Excel or Hangul Word Processor file",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"BZh": "a bzip2 archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"%PDF": "a PDF file",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "an SQLite database",
}


def is_parquet(name: str, path: Path) -> bool:
    """Return whether the file is Parquet rather than text.

    Raises:
        DatasetError: it is neither; `name` is the source's.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    for signature, what in _SIGNATURES.items():
        if start.startswith(signature):
            raise DatasetError(f'source "{name}" is {what}; it must be {WANTED}')
    if start.startswith(_PARQUET):
        return True
    if b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        raise DatasetError(f'source "{name}" is not text; it must be {WANTED}')
    return False


def of_text(name: str, file: TextIO) -> Literal["JSON Lines", "JSON", "CSV"]:
    """Return the kind of a text file, of which at most the first 1,048,576 characters are read.

    Raises:
        DatasetError: it is not a supported kind.
    """
    lines = file.read(_HEAD_CHARACTERS).split("\n")
    body = list(itertools.dropwhile(_is_empty, lines))
    if not body:
        return "JSON Lines"
    first = body[0].strip(" ")
    if first.startswith("["):
        return "JSON"
    if first.startswith("{"):
        return "JSON" if _is_document(body) else "JSON Lines"
    header = csv_table.header(first)
    if not set(header).isdisjoint(COLUMNS):
        return "CSV"
    # A damaged row or text before the rows is not a table.
    second = next(itertools.filterfalse(_is_empty, body[1:]), "")
    if first.startswith("```") or _is_json(first) or (second.startswith("{") and _is_json(second)):
        return "JSON Lines"
    if len(header) > 1:
        return "CSV"
    raise DatasetError(f'source "{name}" is text without rows; it must be {WANTED}')


def _is_empty(line: str) -> bool:
    return not line.strip() or is_fence(line)


def _is_document(body: list[str]) -> bool:
    """Return whether text that starts with an object is something else than one object per line."""
    text = "\n".join(body).lstrip()
    if _is_json(body[0]):
        return all(map(_is_empty, body[1:])) and wrapped_list(text) is not None
    if body[0].strip() == "{" or wrapped_list(text) is not None:
        return True
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
