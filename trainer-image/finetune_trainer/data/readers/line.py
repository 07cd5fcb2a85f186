"""The rows that readers return, and their notes about a source."""

import json
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from finetune_trainer.data.rows.example import Unit

MAXIMUM_ROW_CHARACTERS = 8_000_000
Kind = Literal["JSON Lines", "JSON", "CSV", "Parquet"]
WANTED = (
    'JSON Lines, a JSON array, CSV with a header or Parquet, with rows such as {"instruction": "...", "output": "..."}'
)

UNREADABLE = "it has a number that is too long, or brackets that are nested too deeply"


class Line(NamedTuple):
    """One row; `value` is its content with all text in NFC, or None with a `fault`."""

    # From 1; counted by SourceNotes.unit.
    number: int
    value: Any
    fault: str | None = None


def not_json(error: json.JSONDecodeError) -> str:
    """Return what is wrong with text that is not JSON, without quoting it."""
    return f"it is not JSON: {error.msg.removesuffix(' at')}"


@dataclass
class SourceNotes:
    """Notes about reading one source. Complete after its last row."""

    kind: Kind = "JSON Lines"
    # The text encoding; always UTF-8 for Parquet.
    encoding: str = "UTF-8"
    # Whether Markdown fences around rows or around the file were removed.
    fenced: bool = False
    # Rows with text that was not in NFC.
    composed: int = 0

    @property
    def unit(self) -> Unit:
        """How rows of this kind of file are counted: a line is where the row starts."""
        return "line" if self.kind in ("JSON Lines", "CSV") else "row"

    def warnings(self, source: str) -> list[str]:
        """Return warnings for the user, in the form of DatasetStatus.warnings."""
        found = []
        if not self.encoding.startswith("UTF-8"):
            found.append(f'EncodingConverted: source "{source}" is {self.encoding} text and was read as such')
        if self.fenced:
            found.append(f'FencesRemoved: source "{source}" has Markdown fences (```), which were removed')
        if self.composed:
            rows = f"{self.composed:,} {'row' if self.composed == 1 else 'rows'}"
            found.append(
                f'TextComposed: source "{source}" has decomposed letters (NFD) in {rows}, which were composed (NFC)'
            )
        return found
