"""Writes the rows that train reads, in batches: the columns are those of their method."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from finetune_trainer.methods.interface import TrainingMethod
from finetune_trainer.methods.rows import Row

_BATCH = 1000


class RowWriter:
    """Writes one Parquet file."""

    def __init__(self, path: Path, method: TrainingMethod[Any]) -> None:
        from pyarrow import parquet

        self._schema = method.schema()
        self._file = parquet.ParquetWriter(path, self._schema)
        self._waiting: list[Row] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._file.close()

    def add(self, row: Row) -> None:
        """Add a row of the file's method."""
        self._waiting.append(row)
        if len(self._waiting) == _BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            columns = {name: [getattr(row, name) for row in self._waiting] for name in self._schema.names}
            self._file.write_batch(pa.record_batch(columns, schema=self._schema))
            self._waiting = []


def select(source: Path, target: Path, row_ids: Any) -> None:
    """Write the rows of `source` whose ids are in an int64 array, in their order."""
    import pyarrow as pa
    from pyarrow import compute, parquet

    wanted = pa.array(row_ids, pa.int64())
    with parquet.ParquetFile(source) as file, parquet.ParquetWriter(target, file.schema_arrow) as out:
        for batch in file.iter_batches(batch_size=_BATCH):
            chosen = batch.filter(compute.is_in(batch["row_id"], value_set=wanted))
            if len(chosen):
                out.write_batch(chosen)
