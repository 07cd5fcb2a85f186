"""Reads one dataset source: JSON Lines in UTF-8, and a clear word about everything else."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.errors import DatasetError

MAXIMUM_LINE_BYTES = 8 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
# How the files begin that people upload instead.
_SIGNATURES = {
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a ZIP archive or an Excel file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"SQLite format 3": "an SQLite database",
}
_WANTED = 'JSON Lines: UTF-8 text with one object per line, such as {"instruction": "...", "output": "..."}'


@dataclass(frozen=True)
class Line:
    """One line that is not blank; `value` is what it says, or None with a `fault`."""

    number: int
    value: Any
    fault: str | None = None


def checked_sha256(name: str, path: Path, expected: str | None) -> str:
    """Return the sha256 of the file.

    Raises:
        DatasetError: it is not the expected one.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and digest != expected:
        raise DatasetError(
            f'source "{name}" has sha256 {digest}, not {expected}; '
            "the file was changed: correct dataset.sources[].s3.sha256 or restore the file"
        )
    return digest


def read_lines(name: str, path: Path) -> Iterator[Line]:
    """Yield the lines of a source.

    Raises:
        DatasetError: the file as a whole is not JSON Lines, or is empty.
    """
    _check_beginning(name, path)
    empty = True
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(MAXIMUM_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAXIMUM_LINE_BYTES:
                raise DatasetError(
                    f'source "{name}", line {number}: it is longer than {MAXIMUM_LINE_BYTES // 2**20} MiB; '
                    "write one example per line"
                )
            raw = (raw.removeprefix(_BOM) if number == 1 else raw).strip()
            if raw:
                empty = False
                yield _line(name, number, raw)
    if empty:
        raise DatasetError(f'source "{name}" is empty; it must be {_WANTED}')


def _line(name: str, number: int, raw: bytes) -> Line:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise _not_utf8(name, number, raw) from None
    try:
        return Line(number, json.loads(text))
    except (ValueError, RecursionError):
        return Line(number, None, "it is not JSON")


def _not_utf8(name: str, number: int, raw: bytes) -> DatasetError:
    try:
        raw.decode("cp949")
    except UnicodeDecodeError:
        return DatasetError(f'source "{name}", line {number}: it is not UTF-8 text; the source must be {_WANTED}')
    return DatasetError(
        f'source "{name}", line {number}: it is CP949 (EUC-KR) text, not UTF-8; '
        "convert the file: iconv -f CP949 -t UTF-8 OLD > NEW"
    )


def _check_beginning(name: str, path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(MAXIMUM_LINE_BYTES)
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature):
            raise DatasetError(f'source "{name}" is {kind}; it must be {_WANTED}')
    first = start.removeprefix(_BOM).lstrip()
    if first.startswith(b"["):
        raise DatasetError(f'source "{name}" is a JSON array; write its elements as lines: jq -c ".[]" OLD > NEW')
    line, _, rest = first.partition(b"\n")
    if first.startswith(b"{"):
        if line.strip() == b"{" or (rest and _is_json(first) and not _is_json(line)):
            raise DatasetError(
                f'source "{name}" is one JSON document over several lines; write one object per line: jq -c . OLD > NEW'
            )
    elif first and rest and not _is_json(line) and any(s in line for s in (b",", b"\t", b";")):
        raise DatasetError(f'source "{name}" looks like a CSV table; it must be {_WANTED}')


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
