"""What is remembered of rows."""

import numpy as np

from finetune_trainer.data.checks.minhash import VALUES
from finetune_trainer.data.rows.table import COLUMNS, Block, Flag, RowTable


def _block(first: int, rows: int) -> Block:
    numbers = np.arange(first, first + rows)
    columns = {name: numbers.astype(kind) for name, kind in COLUMNS.items()}
    return Block(columns, np.repeat(numbers[:, None], VALUES, axis=1).astype(np.uint16))


def test_rows_keep_their_values_while_the_table_grows() -> None:
    table = RowTable()
    for first in range(0, 30_000, 1000):
        table.append(_block(first, 1000))
    assert len(table) == 30_000
    assert (table.column("row_id") == np.arange(30_000)).all()
    assert (table.signature[:, -1] == np.arange(30_000)).all()


def test_any_bit_of_a_flag_counts() -> None:
    table = RowTable()
    table.append(_block(0, 9))
    found = np.flatnonzero(table.flagged(Flag.ECHO | Flag.LONG_ANSWER))
    assert found.tolist() == [1, 3, 5, 7, 8]
