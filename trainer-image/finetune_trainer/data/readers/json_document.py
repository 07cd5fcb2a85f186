"""JSON over several lines: an array of rows, an object with such an array, or consecutive objects."""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from finetune_api.dataset_spec import COLUMNS
from finetune_trainer.data.readers.line import MAXIMUM_ROW_CHARACTERS, UNREADABLE, Line, SourceNotes, not_json
from finetune_trainer.errors import DatasetError

_CHUNK_CHARACTERS = 2**18
_STRING = r'"(?:[^"\\]|\\.)*+"'
_SCALAR = rf"(?:{_STRING}|[-+.\w]++)"
# {"version": 1, "data": [{
_WRAPPED = re.compile(rf"\{{\s*+((?:{_STRING}\s*+:\s*+{_SCALAR}\s*+,\s*+)*+)({_STRING})\s*+:\s*+(?=\[\s*+\{{)")
# , "count": 2}
_SPACE = re.compile(r"(?:\s++|```\w*+)*+")
_WRAPPED_END = re.compile(rf"(?:\s*+,\s*+{_STRING}\s*+:\s*+{_SCALAR})*+\s*+\}}{_SPACE.pattern}")
# The decoder's error for a truncated value is this close to its end: "\\uD83D" and "-Infinity" are the longest.
_CUT = 16


def wrapped_list(text: str) -> int | None:
    """Return where the list starts if the text is an object with a list of rows, else None."""
    found = _WRAPPED.match(text)
    if found is None or json.loads(found[2], strict=False) in COLUMNS:
        return None
    if any(f'"{name}"' in found[1] for name in COLUMNS):
        return None
    return found.end()


def read(name: str, file: TextIO, notes: SourceNotes) -> Iterator[Line]:
    """Yield the rows of a source, numbered from 1.

    Raises:
        DatasetError: the text is not JSON from some point on, or has something besides the rows.
    """
    text = _Buffer(name, file)
    text.skip_space()
    start = wrapped_list(text.rest())
    if start is not None:
        text.position += start
    yield from _rows(text, wrapped=start is not None)
    notes.fenced = text.fenced


def _rows(text: "_Buffer", *, wrapped: bool) -> Iterator[Line]:
    number = 0
    in_list = False
    while mark := text.next_mark():
        if not in_list and mark == "[":
            in_list = True
            text.position += 1
            if text.next_mark() != "]":
                continue
            mark = "]"
        elif mark != "]" or not in_list:
            number += 1
            yield Line(number, text.value(number))
            if not in_list:
                continue
            mark = text.next_mark()
            if mark == ",":
                text.position += 1
                continue
        if mark != "]":
            raise text.error(number, "a comma or the closing bracket is missing after it; add it" if mark else _CUT_OFF)
        text.position += 1
        in_list = False
        if wrapped:
            text.check_end()
            return
    if in_list:
        raise text.error(number, _CUT_OFF)


_CUT_OFF = "the file ends here, before the closing bracket; upload the whole file"
_ENDLESS = "the file ends in the middle of it; add the missing quote or bracket, or upload the whole file"


class _Buffer:
    """The part of the text from `position` on that is in memory."""

    def __init__(self, name: str, file: TextIO) -> None:
        self._name = name
        self._file = file
        self._text = ""
        self.position = 0
        # Lines before the text in memory.
        self._lines = 0
        self._ended = False
        self.fenced = False

    def rest(self) -> str:
        return self._text[self.position :]

    def skip_space(self) -> None:
        while True:
            found = _SPACE.match(self._text, self.position)
            assert found is not None  # it also matches an empty string
            # A fence may be cut off at the end of the text in memory.
            if found.end() + _CUT < len(self._text) or not self._more():
                break
        self.fenced = self.fenced or "```" in found[0]
        self.position = found.end()

    def next_mark(self) -> str:
        """Return the next character that is not a space, or "" at the end."""
        self.skip_space()
        return self._text[self.position : self.position + 1]

    def value(self, number: int) -> Any:
        """Return the value at the position and move behind it."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self.position)
            except json.JSONDecodeError as error:
                if not self._may_be_cut(error, len(self._text) - _CUT):
                    raise self.error(number, f"{not_json(error)}; correct it", error.pos) from None
                if len(self._text) - self.position > MAXIMUM_ROW_CHARACTERS:
                    raise self.error(
                        number, f"it is longer than {MAXIMUM_ROW_CHARACTERS:,} characters; shorten it"
                    ) from None
                if not self._more():
                    cut = self._may_be_cut(error, len(self._text.rstrip()))
                    what = _ENDLESS if cut else f"{not_json(error)}; correct it"
                    raise self.error(number, what, error.pos) from None
            # A number with more digits than Python reads, or nesting that is too deep.
            except (ValueError, RecursionError):
                raise self.error(number, f"{UNREADABLE}; correct it") from None
            else:
                # A number may continue.
                if end < len(self._text) or not self._more():
                    self.position = end
                    return value

    def check_end(self) -> None:
        while len(self._text) - self.position <= MAXIMUM_ROW_CHARACTERS and self._more():
            pass
        if not _WRAPPED_END.fullmatch(self._text, self.position):
            raise DatasetError(f'source "{self._name}" has more than one list; leave only the list of rows in the file')

    def error(self, number: int, what: str, position: int | None = None) -> DatasetError:
        line = self._lines + self._text.count("\n", 0, self.position if position is None else position) + 1
        return DatasetError(f'source "{self._name}", row {number} (line {line}): {what}')

    @staticmethod
    def _may_be_cut(error: json.JSONDecodeError, end: int) -> bool:
        return error.msg.startswith("Unterminated string") or error.pos >= end

    def _more(self) -> bool:
        """Read more text, in steps that double within one value; return whether there was more."""
        if self._ended:
            return False
        more = self._file.read(max(_CHUNK_CHARACTERS, len(self._text) - self.position))
        if not more:
            self._ended = True
            return False
        self._lines += self._text.count("\n", 0, self.position)
        self._text = self._text[self.position :] + more
        self.position = 0
        return True


_DECODER = json.JSONDecoder()
