"""The user's names of the fields: `dataset.columns`."""

import re
from collections.abc import Container, Iterable, Mapping
from typing import Any

from finetune_trainer.errors import DatasetError

_QUOTED = re.compile(r'"(\w+)"')
_NAMES_SHOWN = 12
# A CSV file without a header has data where the names should be, and data is never shown.
_NAME = re.compile(r"\w[\w./-]{0,31}( [\w./-]{1,31}){0,2}")


class Columns:
    """The mapping of one source; it remembers which names the rows had."""

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self._mapping = dict(mapping)
        self._theirs = frozenset(self._mapping.values())
        # Fields of the rows so far, in the order in which they came.
        self._seen: dict[str, None] = {}

    def rename(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row by our names. One of our names is taken as it is where the row has no mapped one."""
        if not self._mapping:
            return row
        self._seen.update(dict.fromkeys(row))
        renamed = {key: value for key, value in row.items() if key not in self._theirs}
        renamed.update({ours: row[theirs] for ours, theirs in self._mapping.items() if theirs in row})
        return renamed

    def unseen(self) -> set[str]:
        """Return our names of the mapped fields that no row so far has, neither by our name nor by the user's."""
        return {ours for ours, theirs in self._mapping.items() if not {ours, theirs} & self._seen.keys()}

    def require(self, source: str, fields: Container[str]) -> None:
        """Check that those mapped fields exist; to be called after all rows of the source.

        Raises:
            DatasetError: no row has one of them.
        """
        unseen = self.unseen()
        for ours, theirs in self._mapping.items():
            if ours in unseen and ours in fields:
                raise DatasetError(
                    f'source "{source}": dataset.columns maps {ours} to "{theirs}", and no row has that field; '
                    f"the fields are {shown(self._seen)}"
                )


def in_users_names(reason: str, mapping: Mapping[str, str]) -> str:
    """Return why a row is invalid with the user's names of the quoted fields; a reason quotes nothing else."""
    return _QUOTED.sub(lambda found: f'"{mapping.get(found[1], found[1])}"', reason)


def is_name(name: str) -> bool:
    """Whether it looks like the name of a field, rather than like data."""
    return _NAME.fullmatch(name) is not None


def shown(names: Iterable[str]) -> str:
    """Return field names as messages show them."""
    found = [name for name in names if name]
    listed = ", ".join(name if is_name(name) else "(not a name)" for name in found[:_NAMES_SHOWN]) or "none"
    return f"{listed}, ..." if len(found) > _NAMES_SHOWN else listed
