"""All sources together: examples in order, without invalid rows and exact duplicates."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from finetune_api.training_spec import Method
from finetune_trainer.data import formats, intake, readers
from finetune_trainer.data.columns import Columns
from finetune_trainer.data.example import Example, row_name
from finetune_trainer.data.readers import SourceNotes
from finetune_trainer.data.source_file import SourceFile
from finetune_trainer.errors import DatasetError

_FAULTS_SHOWN = 5


@dataclass
class Collected:
    """What the sources hold."""

    examples: list[Example] = field(default_factory=list)
    # Of each source's bytes, in order.
    sha256s: list[str] = field(default_factory=list)
    rows: int = 0
    faults: list[str] = field(default_factory=list)
    duplicates: int = 0
    # Rows in which text was not in NFC.
    composed: int = 0
    # What was done to files to read them.
    warnings: list[str] = field(default_factory=list)


def collect(sources: Sequence[SourceFile], columns: Mapping[str, str], method: Method) -> Collected:
    """Read all sources; `columns` gives the user's names of our fields.

    Raises:
        DatasetError: a source as a whole is not what it should be.
    """
    found = Collected()
    seen: set[bytes] = set()
    for source in sources:
        found.sha256s.append(intake.checked_sha256(source.name, source.path, source.sha256))
        _collect_source(found, seen, source, Columns(columns), method)
    return found


def _collect_source(found: Collected, seen: set[bytes], source: SourceFile, columns: Columns, method: Method) -> None:
    row_format = None if source.format == "Auto" else source.format
    if row_format:
        formats.check_method(method, row_format, source.name)
    notes = SourceNotes()
    for line in readers.read(source, notes):
        row_id = found.rows
        found.rows += 1
        if row_format is None and isinstance(line.value, dict):
            row_format = formats.detect(source.name, line.number, line.value, columns, notes.unit)
            formats.check_method(method, row_format, source.name)
        parsed = line.fault or formats.parse(line.value, row_format or "Alpaca", columns)
        if isinstance(parsed, str):
            found.faults.append(f"{row_name(source.name, line.number, notes.unit)}: {parsed}")
            continue
        key = hashlib.sha256(json.dumps(parsed).encode()).digest()
        if key in seen:
            found.duplicates += 1
            continue
        seen.add(key)
        example = Example(source.name, line.number, row_id, unit=notes.unit, **parsed._asdict())
        found.examples.append(example)
    found.composed += notes.composed
    found.warnings += notes.warnings(source.name)
    columns.require(source.name)


def refuse_faults(faults: Sequence[str], total: int, invalid_rows: Literal["Fail", "Drop"]) -> None:
    """Name the first invalid rows.

    Raises:
        DatasetError: there are invalid rows and they are not to be dropped.
    """
    if not faults or invalid_rows == "Drop":
        return
    shown = "; ".join(faults[:_FAULTS_SHOWN])
    count = "" if len(faults) == 1 else f"{len(faults)} of {total} rows are invalid, first "
    raise DatasetError(f"{count}{shown}; correct this or set dataset.checks.invalidRows to Drop")


def require_examples(found: int, minimum: int, invalid: int, duplicates: int) -> None:
    """Check the number of usable examples.

    Raises:
        DatasetError: there are too few.
    """
    if found >= minimum:
        return
    counts = {"invalid": invalid, "duplicate": duplicates}
    left_out = " and ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    raise DatasetError(
        f"the dataset has {found} usable examples{f' ({left_out} left out)' if left_out else ''}, and "
        f"dataset.checks.minimumExamples is {minimum}; add examples or lower it"
    )
