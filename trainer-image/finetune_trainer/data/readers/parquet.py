"""Parquet, in batches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_trainer.data.readers.line import Line
from finetune_trainer.errors import DatasetError

_BATCH_BYTES = 16 * 2**20
_BATCH_ROWS = 1024
_BUFFER_BYTES = 2**20


def read(name: str, path: Path) -> Iterator[Line]:
    """Yield the rows of a source, numbered from 1.

    Raises:
        DatasetError: the file is damaged, or has values that Python cannot hold.
    """
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        # Column chunks are streamed, because the whole file may be one row group.
        with parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_batch_rows(file.metadata)):
                for value in batch.to_pylist():
                    number += 1
                    yield Line(number, value)
    # A damaged file raises any of these, text that is not UTF-8 the second, dates before the year 1 the third.
    except (pyarrow.ArrowException, ValueError, OverflowError, OSError) as error:
        raise DatasetError(
            f'source "{name}" is a Parquet file that cannot be read beyond row {number} ({type(error).__name__}); '
            "write it again"
        ) from error


def _batch_rows(metadata: Any) -> int:
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    size = sum(group.total_byte_size for group in groups)
    wanted: int = max(1, min(_BATCH_ROWS, _BATCH_BYTES * rows // max(size, 1)))
    return wanted
