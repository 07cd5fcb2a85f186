"""All sources together: what is in them, row by row, in constant memory but for a few numbers a row."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_api.report import MAXIMUM_PLACES, Place
from finetune_api.training_spec import Method
from finetune_trainer import methods
from finetune_trainer.data import readers
from finetune_trainer.data.readers import Line, SourceNotes
from finetune_trainer.data.rows import formats
from finetune_trainer.data.rows.chunk import MAXIMUM_CHARACTERS, MAXIMUM_ROWS, Chunk, Looked, characters, look
from finetune_trainer.data.rows.columns import Columns
from finetune_trainer.data.rows.example import Unit
from finetune_trainer.data.rows.formats import Format
from finetune_trainer.data.rows.table import RowTable
from finetune_trainer.sources.dataset_file import SourceFile

_WORKERS = 2
# Waiting for a worker or for their turn: enough to keep the workers busy.
_AHEAD = 2 * _WORKERS
# Below this, starting processes takes longer than the work itself.
_WORTH_WORKERS_BYTES = 8 << 20


@dataclass
class Source:
    """What one source turned out to be."""

    name: str
    holdout: bool
    sha256: str = ""
    rows: int = 0
    row_format: Format | None = None
    notes: SourceNotes = field(default_factory=SourceNotes)

    @property
    def unit(self) -> Unit:
        """How its rows are counted."""
        return self.notes.unit


@dataclass
class Collected:
    """What the sources hold."""

    # What the rows are for: as asked, or what the first source's format is for.
    method: Method | None
    sources: list[Source] = field(default_factory=list)
    table: RowTable = field(default_factory=RowTable)
    # Letters by script: see `languages.count`.
    letters: Any = 0
    rows: int = 0
    invalid: int = 0
    invalid_places: list[Place] = field(default_factory=list)


def collect(
    sources: Sequence[SourceFile],
    columns: Mapping[str, str],
    method: Method | None,
    *,
    holdout_sources: Sequence[SourceFile] = (),
    spool: Path | None = None,
    advance: Callable[[int], object] | None = None,
) -> Collected:
    """Read all sources, those of the hold-out last.

    Args:
        sources: The files to train on.
        columns: The user's names of our fields.
        method: What the rows are for; None: whatever the first source is for.
        holdout_sources: The files to judge the result on.
        spool: An empty folder where the valid rows are kept for `disk_buffer.read`; None: they are not needed again.
        advance: Called with the number of rows that were looked at since the last call.

    Raises:
        DatasetError: a source as a whole is not what it should be.
    """
    found = Collected(method)
    files = [*sources, *holdout_sources]
    for number, file in enumerate(files):
        found.sources.append(Source(file.name, number >= len(sources), file.sha256))
    chunks = _chunks(found, files, columns, spool)
    for looked in _looked(chunks, parallel=sum(f.path.stat().st_size for f in files) >= _WORTH_WORKERS_BYTES):
        found.sources[looked.source].rows += looked.rows
        found.rows += looked.rows
        found.table.append(looked.valid)
        found.letters = found.letters + looked.letters
        found.invalid += looked.invalid
        found.invalid_places += looked.invalid_places[: MAXIMUM_PLACES - len(found.invalid_places)]
        if advance:
            advance(looked.rows)
    return found


def _chunks(
    found: Collected, files: Sequence[SourceFile], columns: Mapping[str, str], spool: Path | None
) -> Iterator[Chunk]:
    index = row_id = 0
    mapped = [Columns(columns) for _ in files]
    for number, file in enumerate(files):
        source = found.sources[number]
        for lines in _portions(found, source, file, mapped[number]):
            row_format = source.row_format or "Alpaca"  # not one object so far: all rows are invalid in any format
            yield Chunk(index, number, file.name, source.unit, row_format, row_id, columns, lines, spool)
            index += 1
            row_id += len(lines)
    # What another format needs, or only some of the files have, is no mistake.
    mapped[0].require(files[0].name, set.intersection(*(m.unseen() for m in mapped)))


def _portions(found: Collected, source: Source, file: SourceFile, columns: Columns) -> Iterator[list[Line]]:
    if file.format != "Auto":
        _set_format(found, source, file.format)
    lines: list[Line] = []
    size = 0
    for line in readers.read(file, source.notes):
        if isinstance(line.value, dict):
            if source.row_format is None:
                detected = formats.detect(file.name, line.number, line.value, columns, source.notes.unit)
                _set_format(found, source, detected)
            line = line._replace(value=columns.rename(line.value))
        lines.append(line)
        size += characters(line.value)
        if len(lines) == MAXIMUM_ROWS or size >= MAXIMUM_CHARACTERS:
            yield lines
            lines, size = [], 0
    if lines:
        yield lines
    columns.require(file.name, formats.fields(source.row_format) if source.row_format else ())


def _set_format(found: Collected, source: Source, row_format: Format) -> None:
    found.method = found.method or methods.learning_from(row_format)[0]
    formats.check_method(found.method, row_format, source.name)
    source.row_format = row_format


def _looked(chunks: Iterator[Chunk], *, parallel: bool) -> Iterator[Looked]:
    """Yield what the chunks hold, in their order."""
    if not parallel:
        yield from map(look, chunks)
        return
    # Not forked: this process has threads.
    start = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_WORKERS, start, _leave_interrupts_to_the_parent) as pool:
        waiting: deque[Future[Looked]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(look, chunk))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
