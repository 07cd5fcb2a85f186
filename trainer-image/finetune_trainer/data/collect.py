"""All sources together: examples in order, without invalid rows and exact duplicates."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from finetune_trainer.data import intake, rows
from finetune_trainer.data.example import Example
from finetune_trainer.data.rows import Format
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


def collect(sources: Sequence[SourceFile], row_format: Literal["Auto", "Alpaca", "Messages"]) -> Collected:
    """Read all sources.

    Raises:
        DatasetError: a source as a whole is not what it should be.
    """
    found = Collected()
    seen: set[bytes] = set()
    for source in sources:
        found.sha256s.append(intake.checked_sha256(source.name, source.path, source.sha256))
        _collect_source(found, seen, source, None if row_format == "Auto" else row_format)
    return found


def _collect_source(found: Collected, seen: set[bytes], source: SourceFile, row_format: Format | None) -> None:
    for line in intake.read_lines(source.name, source.path):
        row_id = found.rows
        found.rows += 1
        value, composed = rows.compose(line.value)
        found.composed += composed
        if row_format is None and isinstance(value, dict):
            row_format = rows.detect(source.name, line.number, value)
        parsed = line.fault or rows.parse(value, row_format or "Alpaca")
        if isinstance(parsed, str):
            found.faults.append(f"{rows.row_name(source.name, line.number)}: {parsed}")
            continue
        messages, context = parsed
        key = hashlib.sha256(json.dumps([messages, context]).encode()).digest()
        if key in seen:
            found.duplicates += 1
            continue
        seen.add(key)
        found.examples.append(Example(source.name, line.number, row_id, messages, context))


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
