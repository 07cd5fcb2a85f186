"""Text as Korean programs write it."""

from pathlib import Path

import pytest

from finetune_trainer.data.readers import encodings
from finetune_trainer.errors import DatasetError

_TEXT = '{"instruction": "스쿼트가 뭐야? ①②", "output": "앉았다 일어나는 운동"}\n'


@pytest.mark.parametrize(
    ("codec", "mark", "name"),
    [
        ("utf-8", b"", "UTF-8"),
        ("utf-8", b"\xef\xbb\xbf", "UTF-8 with a byte order mark"),
        ("utf-16-le", b"\xff\xfe", "UTF-16"),
        ("utf-16-be", b"\xfe\xff", "UTF-16"),
        ("utf-32-le", b"\xff\xfe\0\0", "UTF-32"),
        ("utf-32-be", b"\0\0\xfe\xff", "UTF-32"),
        ("cp949", b"", "CP949 (EUC-KR)"),
        ("euc-kr", b"", "CP949 (EUC-KR)"),
    ],
)
def test_encoding_is_seen_and_read(codec: str, mark: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(mark + _TEXT.encode(codec))
    found = encodings.detect("s", path)
    with found.open(path) as file:
        assert (found.name, file.read()) == (name, _TEXT)


def test_cp949_that_begins_after_megabytes_of_english_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a line of text\n" * 150_000 + "한국어".encode("cp949"))
    assert encodings.detect("s", path) == encodings.CP949


def test_character_across_two_chunks_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a" * (2**20 - 1) + "한".encode())
    assert encodings.detect("s", path) == encodings.UTF8


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            b"a\nb\n\xff\xff\n",
            'source "s", line 3: it is neither UTF-8 nor CP949 (EUC-KR) text; save the file as UTF-8',
        ),
        (
            "你好，请告诉我怎么做深蹲运动".encode("gbk"),
            'source "s", line 1: it is neither UTF-8 nor CP949 (EUC-KR) text; save the file as UTF-8',
        ),
        (
            "Hi\nyou don’t need it, it’s what we’ll do".encode("cp1252"),
            'source "s", line 2: it is neither UTF-8 nor CP949 (EUC-KR) text; save the file as UTF-8',
        ),
        (
            "안녕하세요".encode() + b"\n\xec\x95",
            'source "s", line 2: it is neither UTF-8 nor CP949 (EUC-KR) text; save the file as UTF-8',
        ),
        (
            b"\xff\xfea\0\n\0\0\xd8b\0",
            'source "s", line 2: it is not UTF-16 text, although its byte order mark says so',
        ),
    ],
)
def test_other_bytes_are_refused_with_their_line(data: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(DatasetError) as refused:
        encodings.detect("s", path)
    assert refused.value.message == sentence
