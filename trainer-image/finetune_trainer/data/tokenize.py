"""Writes the rows that are kept as token ids, and remembers their lengths."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from finetune_api.report import SampleRow, Segment
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.rows import disk_buffer
from finetune_trainer.data.rows.row_names import place_of
from finetune_trainer.data.tokens.encoder import Encoder
from finetune_trainer.data.tokens.parquet_writer import RowWriter
from finetune_trainer.methods.rows import TokenSequence


@dataclass(frozen=True)
class Tokens:
    """Arrays with an entry for each row of the table; zero where a row is not used."""

    # Tokens of its longest sequence, and those that are learned (int32).
    length: Any
    learned: Any
    truncated: Any
    # Earlier answers of conversations that are context only, over all rows.
    answers_left_out: int
    # The first row.
    sample: SampleRow | None


def tokenize(
    encoder: Encoder,
    tokenizer: Any,
    findings: Findings,
    spooled: Path,
    target: Path,
    advance: Callable[[int], object],
) -> Tokens:
    """Write the rows that `findings` keeps to the Parquet file `target`; invalid ones are rejected there.

    `advance` is called with the number of rows that were looked at since the last call.
    """
    import numpy as np

    rows = len(findings.collected.table)
    length, learned = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
    truncated = np.zeros(rows, bool)
    left_out = 0
    sample: SampleRow | None = None
    with RowWriter(target, encoder.method) as writer:
        for index, example in enumerate(disk_buffer.read(spooled)):
            advance(1)
            if not findings.kept[index]:
                continue
            row = encoder.encode(example)
            if isinstance(row, str):
                findings.reject(index, row)
                continue
            writer.add(row)
            length[index], learned[index] = row.length, row.supervised
            truncated[index] = row.truncated
            left_out += row.answers_left_out
            if sample is None:
                place = place_of(findings.collected.table, findings.collected.sources, index)
                sample = SampleRow(place=place, segments=_segments(tokenizer, row.sequence))
    return Tokens(length, learned, truncated, left_out, sample)


def answers_warning(answers_left_out: int) -> list[str]:
    """Return a warning, beginning with its CamelCase reason, if there are answers that are not learned."""
    if not answers_left_out:
        return []
    return [
        f"AnswersLeftOut: {answers_left_out:,} earlier answers of conversations are not learned, because the chat "
        "template shows them otherwise than the model gives them, as without their thinking; to learn them too, end "
        "rows of their own with them"
    ]


def _segments(tokenizer: Any, sequence: TokenSequence) -> list[Segment]:
    ids, mask = sequence.input_ids, sequence.completion_mask
    borders = [0, *(i for i in range(1, len(ids)) if mask[i] != mask[i - 1]), len(ids)]
    return [
        Segment(text=tokenizer.decode(ids[start:end]), learned=bool(mask[start])) for start, end in pairwise(borders)
    ]
