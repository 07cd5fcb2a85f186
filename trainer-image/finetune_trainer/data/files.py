"""Writes the rows that train reads."""

from collections.abc import Sequence
from pathlib import Path

from finetune_trainer.data.tokenize import TokenizedRow


def write(path: Path, rows: Sequence[TokenizedRow]) -> None:
    """Write a Parquet file with the columns that `prepared` describes."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(
        [("input_ids", pa.list_(pa.int32())), ("completion_mask", pa.list_(pa.int8())), ("row_id", pa.int64())]
    )
    columns = {
        "input_ids": [r.input_ids for r in rows],
        "completion_mask": [r.completion_mask for r in rows],
        "row_id": [r.row_id for r in rows],
    }
    parquet.write_table(pa.table(columns, schema=schema), path)
