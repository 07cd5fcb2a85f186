"""JSON Lines: one value on each line that is not blank."""

import json
from collections.abc import Iterator
from typing import Any, TextIO

from finetune_trainer.data.readers import fences
from finetune_trainer.data.readers.line import MAXIMUM_ROW_CHARACTERS, UNREADABLE, Line, SourceNotes, not_json
from finetune_trainer.errors import DatasetError


def read(name: str, file: TextIO, notes: SourceNotes) -> Iterator[Line]:
    """Yield the rows of a source, numbered by line.

    Raises:
        DatasetError: a line is too long.
    """
    number = 0
    while line := file.readline(MAXIMUM_ROW_CHARACTERS + 1):
        number += 1
        if len(line) > MAXIMUM_ROW_CHARACTERS:
            raise DatasetError(
                f'source "{name}", line {number}: it is longer than {MAXIMUM_ROW_CHARACTERS:,} characters; '
                "write one example per line"
            )
        text = line.strip()
        if not text:
            continue
        if text.startswith("```"):
            notes.fenced = True
            if fences.is_fence(text):
                continue
            text = fences.unwrap(text) or text
        yield _line(number, text, line)


def _line(number: int, text: str, line: str) -> Line:
    try:
        value: Any = json.loads(text)
    except json.JSONDecodeError as error:
        return Line(number, None, f"{not_json(error)} (character {line.index(text) + error.pos + 1})")
    except (ValueError, RecursionError):
        return Line(number, None, UNREADABLE)
    return Line(number, value)
