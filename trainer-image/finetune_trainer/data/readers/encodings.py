"""Detects the text encoding of a file. Korean Windows programs still write CP949, and spreadsheets UTF-16."""

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from finetune_trainer.errors import DatasetError

_CHUNK_BYTES = 2**20
# UTF-32 first: its mark starts like that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: ("utf-32-le", "UTF-32"),
    codecs.BOM_UTF32_BE: ("utf-32-be", "UTF-32"),
    codecs.BOM_UTF16_LE: ("utf-16-le", "UTF-16"),
    codecs.BOM_UTF16_BE: ("utf-16-be", "UTF-16"),
    codecs.BOM_UTF8: ("utf-8", "UTF-8 with a byte order mark"),
}
# The 2,350 syllables of KS X 1001, which nearly all Korean text uses: two bytes from 0xB0A1 to 0xC8FE. The others
# of CP949 also result from Western text (Windows-1252), where a letter follows a curly quote.
_HANGUL = re.compile(
    f"[{bytes(b for lead in range(0xB0, 0xC9) for trail in range(0xA1, 0xFF) for b in (lead, trail)).decode('cp949')}]"
)
_FOREIGN = re.compile(r"[^\W\d_a-zA-Z]")
# Chinese text (GBK) that happens to decode as CP949 has at most 60 % Hangul, Korean text nearly 100 %.
_HANGUL_SHARE = 0.8
# The number of letters that is enough to determine the share.
_ENOUGH = 100_000


@dataclass(frozen=True)
class Encoding:
    """How the bytes of a file become text."""

    codec: str
    # How messages name it.
    name: str
    mark_bytes: int = 0

    def open(self, path: Path, newline: str | None = None) -> TextIO:
        """Open the file as text after its byte order mark; `newline` as in `io.TextIOWrapper`."""
        file = path.open("rb")
        file.seek(self.mark_bytes)
        return io.TextIOWrapper(file, self.codec, newline=newline)


UTF8 = Encoding("utf-8", "UTF-8")
CP949 = Encoding("cp949", "CP949 (EUC-KR)")


def detect(name: str, path: Path) -> Encoding:
    """Return the encoding of a whole file, in constant memory; `name` is the source's.

    Raises:
        DatasetError: the encoding is not supported; the message has the first line that shows it.
    """
    marked = _marked(path)
    encoding = marked or UTF8
    line = _undecodable_line(path, encoding)
    if line is None:
        return encoding
    if marked:
        raise DatasetError(
            f'source "{name}", line {line}: it is not {marked.name} text, although its byte order mark says so'
        )
    if _undecodable_line(path, CP949) is None and _is_korean(path):
        return CP949
    raise DatasetError(
        f'source "{name}", line {line}: it is neither UTF-8 nor CP949 (EUC-KR) text; save the file as UTF-8'
    )


def _marked(path: Path) -> Encoding | None:
    with path.open("rb") as file:
        start = file.read(4)
    for mark, (codec, name) in _MARKS.items():
        if start.startswith(mark):
            return Encoding(codec, name, len(mark))
    return None


def _undecodable_line(path: Path, encoding: Encoding) -> int | None:
    """Return the number of the first line (from 1) that is not in the encoding, or None."""
    line = 1
    try:
        for text in _texts(path, encoding):
            line += text.count("\n")
    except UnicodeDecodeError as error:
        return line + error.object[: error.start].decode(encoding.codec, "ignore").count("\n")
    return None


def _texts(path: Path, encoding: Encoding) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding.codec)()
    with path.open("rb") as file:
        file.seek(encoding.mark_bytes)
        while data := file.read(_CHUNK_BYTES):
            yield decoder.decode(data)
    yield decoder.decode(b"", final=True)


def _is_korean(path: Path) -> bool:
    hangul = foreign = 0
    for text in _texts(path, CP949):
        hangul += len(_HANGUL.findall(text))
        foreign += len(_FOREIGN.findall(text))
        if foreign > _ENOUGH:
            break
    return hangul >= _HANGUL_SHARE * foreign
