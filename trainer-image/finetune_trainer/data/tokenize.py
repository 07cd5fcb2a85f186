"""The rows that stay, as token ids in a file, and what is remembered of each."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from finetune_api.report import SampleRow, Segment
from finetune_api.training_spec import Method
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.rows import disk_buffer
from finetune_trainer.data.rows.row_names import place_of
from finetune_trainer.data.tokens.encoder import Encoder, Row
from finetune_trainer.data.tokens.parquet_writer import RowWriter
from finetune_trainer.data.tokens.stop_tokens import BinaryRow, PreferenceRow, TokenizedRow


@dataclass(frozen=True)
class Tokens:
    """Of each row of the table, in arrays; zero where a row is not used."""

    # Of the longest sequence, and those that are learned (int32).
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
    method: Method,
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
    with RowWriter(target, method) as writer:
        for index, example in enumerate(disk_buffer.read(spooled)):
            advance(1)
            if not findings.kept[index]:
                continue
            row = encoder.encode(example)
            if isinstance(row, str):
                findings.reject(index, row)
                continue
            writer.add(row)
            length[index], learned[index] = _sizes(row)
            truncated[index] = row.truncated
            if isinstance(row, TokenizedRow):
                left_out += row.answers_left_out
            if sample is None:
                place = place_of(findings.collected.table, findings.collected.sources, index)
                sample = SampleRow(place=place, segments=_segments(tokenizer, row))
    return Tokens(length, learned, truncated, left_out, sample)


def _sizes(row: Row) -> tuple[int, int]:
    """Return the tokens of the longest sequence, and how many are learned."""
    if isinstance(row, PreferenceRow):
        chosen, rejected = len(row.chosen_ids), len(row.rejected_ids)
        return len(row.prompt_ids) + max(chosen, rejected), chosen + rejected
    if isinstance(row, BinaryRow):
        return len(row.prompt_ids) + len(row.completion_ids), len(row.completion_ids)
    # Nothing predicts the first token.
    return len(row.input_ids), sum(row.completion_mask[1:])


def _segments(tokenizer: Any, row: Row) -> list[Segment]:
    if isinstance(row, TokenizedRow):
        ids, mask = row.input_ids, row.completion_mask
    else:
        answer = row.chosen_ids if isinstance(row, PreferenceRow) else row.completion_ids
        ids, mask = [*row.prompt_ids, *answer], [0] * len(row.prompt_ids) + [1] * len(answer)
    borders = [0, *(i for i in range(1, len(ids)) if mask[i] != mask[i - 1]), len(ids)]
    return [
        Segment(text=tokenizer.decode(ids[start:end]), learned=bool(mask[start])) for start, end in pairwise(borders)
    ]
