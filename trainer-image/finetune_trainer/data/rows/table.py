"""What is remembered of every row: a few numbers in arrays, so that a million rows fit a small memory."""

from dataclasses import dataclass
from enum import IntFlag
from typing import Any

from finetune_trainer.data.checks.minhash import VALUES

_FIRST_CAPACITY = 4096


class Flag(IntFlag):
    """What was seen in one row alone."""

    ECHO = 1
    REFUSAL = 2
    UNFINISHED = 4
    LONG_ANSWER = 8
    RESIDENT_NUMBER = 16
    PHONE = 32
    CARD = 64
    MAIL = 128
    # One prompt has many good answers there: rows with a choice or a judgement, and plain text.
    OPEN = 256


PERSONAL = Flag.RESIDENT_NUMBER | Flag.PHONE | Flag.CARD | Flag.MAIL

# Hashes are of normal forms, but for `exact`.
COLUMNS: dict[str, str] = {
    "source": "int16",
    # As people count in the source.
    "number": "int64",
    # Over all sources, invalid rows included.
    "row_id": "int64",
    "characters": "int32",
    "answer_characters": "int32",
    "flags": "uint16",
    "exact": "uint64",
    "prompt": "uint64",
    # The first question, and the first two: see `Findings.question`.
    "question": "uint64",
    "opening": "uint64",
    "answer": "uint64",
    # A hash of what must be equal in near duplicates: their numbers and their label.
    "guard": "uint64",
}


@dataclass(frozen=True)
class Block:
    """Rows that belong together; arrays of one length, `signature` with VALUES columns."""

    columns: dict[str, Any]
    signature: Any


class RowTable:
    """The valid rows in their order."""

    def __init__(self) -> None:
        import numpy as np

        self._size = 0
        self._columns = {name: np.empty(_FIRST_CAPACITY, kind) for name, kind in COLUMNS.items()}
        self._signature = np.empty((_FIRST_CAPACITY, VALUES), np.uint16)

    def __len__(self) -> int:
        return self._size

    def append(self, block: Block) -> None:
        """Add rows at the end."""
        start, end = self._size, self._size + len(block.signature)
        capacity = len(self._signature)
        if end > capacity:
            # Grown in place: a copy would need the memory twice.
            wanted = max(end, capacity + capacity // 2)
            for array in self._columns.values():
                array.resize(wanted, refcheck=False)
            self._signature.resize((wanted, VALUES), refcheck=False)
        for name, array in self._columns.items():
            array[start:end] = block.columns[name]
        self._signature[start:end] = block.signature
        self._size = end

    def column(self, name: str) -> Any:
        """Return a view of one of COLUMNS, good until the next `append`."""
        return self._columns[name][: self._size]

    @property
    def signature(self) -> Any:
        """A view of the signatures, rows x VALUES, good until the next `append`."""
        return self._signature[: self._size]

    def flagged(self, flag: Flag) -> Any:
        """Return which rows (a bool array) have any bit of the flag."""
        return (self.column("flags") & int(flag)) != 0
