"""Keeps the valid rows on disk between intake and tokenization: one Arrow file for each chunk, in their order."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from finetune_trainer.data.rows.example import Example, Message

_ROLES = ("system", "user", "assistant")


def write(folder: Path, chunk: int, examples: Sequence[Example]) -> None:
    """Write the examples of one chunk; chunks count from 0."""
    import pyarrow as pa
    from pyarrow import ipc

    schema = pa.schema(
        [
            ("source", pa.string()),
            ("number", pa.int64()),
            ("unit", pa.string()),
            ("row_id", pa.int64()),
            ("roles", pa.list_(pa.int8())),
            ("contents", pa.list_(pa.string())),
            ("context", pa.string()),
            ("rejected", pa.string()),
            ("label", pa.bool_()),
            ("text", pa.string()),
        ]
    )
    columns = {
        "source": [e.source for e in examples],
        "number": [e.line for e in examples],
        "unit": [e.unit for e in examples],
        "row_id": [e.row_id for e in examples],
        "roles": [[_ROLES.index(m["role"]) for m in e.messages] for e in examples],
        "contents": [[m["content"] for m in e.messages] for e in examples],
        "context": [e.context for e in examples],
        "rejected": [e.rejected for e in examples],
        "label": [e.label for e in examples],
        "text": [e.text for e in examples],
    }
    batch = pa.record_batch(columns, schema=schema)
    options = ipc.IpcWriteOptions(compression="lz4")
    with ipc.new_file(str(_path(folder, chunk)), schema, options=options) as file:
        file.write_batch(batch)


def read(folder: Path) -> Iterator[Example]:
    """Yield all examples in the order of the chunks, one chunk in memory at a time."""
    from pyarrow import ipc

    for path in sorted(folder.glob("*.arrow")):
        with ipc.open_file(str(path)) as file:
            rows = file.read_all().to_pylist()
        for row in rows:
            yield _example(row)


def _path(folder: Path, chunk: int) -> Path:
    return folder / f"{chunk:08}.arrow"


def _example(row: dict[str, Any]) -> Example:
    messages = (
        cast(Message, {"role": _ROLES[role], "content": content})
        for role, content in zip(row["roles"], row["contents"], strict=True)
    )
    return Example(
        source=row["source"],
        line=row["number"],
        row_id=row["row_id"],
        messages=tuple(messages),
        context=row["context"],
        rejected=row["rejected"],
        label=row["label"],
        text=row["text"],
        unit=row["unit"],
    )
