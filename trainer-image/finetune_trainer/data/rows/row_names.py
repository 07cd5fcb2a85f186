"""How rows are named to their owner."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from finetune_api.report import MAXIMUM_PLACES, Place
from finetune_trainer.data.rows.collect import Source
from finetune_trainer.data.rows.example import row_name
from finetune_trainer.data.rows.table import RowTable

# In a sentence; the report has more.
_SHOWN = 3


def first_places(table: RowTable, sources: Sequence[Source], rows: Any) -> list[Place]:
    """Return the first of the rows of a bool array."""
    import numpy as np

    return [place_of(table, sources, index) for index in np.flatnonzero(rows)[:MAXIMUM_PLACES].tolist()]


def place_of(table: RowTable, sources: Sequence[Source], index: int) -> Place:
    """Return where a row of the table comes from."""
    source = sources[int(table.column("source")[index])]
    return Place(source=source.name, number=int(table.column("number")[index]), unit=source.unit)


def listed(places: Sequence[Place]) -> str:
    """Return the first places in words, such as `source "coach", lines 3, 9 and 12`."""
    parts = []
    for (source, unit), group in groupby(places[:_SHOWN], lambda p: (p.source, p.unit)):
        numbers = [str(place.number) for place in group]
        *most, last = numbers
        if most:
            parts.append(f'source "{source}", {unit}s {", ".join(most)} and {last}')
        else:
            parts.append(row_name(source, int(last), unit))
    return "; ".join(parts)


def number_of_rows(count: int) -> str:
    """Return `1 row` or `1,200 rows`."""
    return f"{count:,} {'row' if count == 1 else 'rows'}"
