"""A number of rows of one source, parsed and looked at together, in this process or in another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.report import MAXIMUM_PLACES, Place
from finetune_trainer.data.readers import Line
from finetune_trainer.data.rows import analysis, formats
from finetune_trainer.data.rows import disk_buffer as spool
from finetune_trainer.data.rows.columns import Columns, in_users_names
from finetune_trainer.data.rows.example import Example, Unit
from finetune_trainer.data.rows.formats import Format
from finetune_trainer.data.rows.table import Block

# Rows of a chunk, and the characters after which it ends earlier: what a worker holds at a time.
MAXIMUM_ROWS = 2000
MAXIMUM_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """Rows as they were read, by our names of the fields."""

    # From 0, over all sources.
    index: int
    source: int
    source_name: str
    unit: Unit
    row_format: Format
    # The row ids follow one another.
    first_row_id: int
    # The user's names of our fields, for the reasons.
    columns: Mapping[str, str]
    lines: Sequence[Line]
    # Where the valid rows are kept, if they are needed again.
    spool: Path | None


@dataclass(frozen=True)
class Looked:
    """What a chunk holds."""

    source: int
    rows: int
    valid: Block
    # Letters by script: see `languages.count`.
    letters: Any
    invalid: int
    # The first invalid rows, with their reasons.
    invalid_places: list[Place]


def look(chunk: Chunk) -> Looked:
    """Parse the rows, keep the valid ones on disk and return what is remembered of them."""
    examples = []
    invalid: list[Place] = []
    columns = Columns({})
    for offset, line in enumerate(chunk.lines):
        parsed = line.fault or formats.parse(line.value, chunk.row_format, columns)
        if isinstance(parsed, str):
            reason = in_users_names(parsed, chunk.columns)
            invalid.append(Place(source=chunk.source_name, number=line.number, unit=chunk.unit, reason=reason))
            continue
        row_id = chunk.first_row_id + offset
        examples.append(Example(chunk.source_name, line.number, row_id, *parsed, unit=chunk.unit))
    if chunk.spool:
        spool.write(chunk.spool, chunk.index, examples)
    block, letters = analysis.analyse(chunk.source, examples)
    return Looked(chunk.source, len(chunk.lines), block, letters, len(invalid), invalid[:MAXIMUM_PLACES])


def characters(value: Any) -> int:
    """Return about how much text a row holds."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(characters, value.values()))
    if isinstance(value, list):
        return sum(map(characters, value))
    return 8
