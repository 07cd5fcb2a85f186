"""What people upload instead of a good dataset, and the one sentence that each of them gets."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.support.trainer_job import TrainerJob, alpaca_rows, write_rows

_WANTED = 'JSON Lines: UTF-8 text with one object per line, such as {"instruction": "...", "output": "..."}'
_FIX = "; correct this or set dataset.checks.invalidRows to Drop"
_SECRET = "비밀문장"


class Case(NamedTuple):
    name: str
    make: Callable[[TrainerJob], None]
    sentence: str


def _bytes(data: bytes) -> Callable[[TrainerJob], None]:
    def make(job: TrainerJob) -> None:
        job.dataset.write_bytes(data)

    return make


def _only(*rows: Any) -> Callable[[TrainerJob], None]:
    def make(job: TrainerJob) -> None:
        write_rows(job.dataset, list(rows))

    return make


def _rows(*rows: Any) -> Callable[[TrainerJob], None]:
    """Good rows on lines 1 to 60, then these."""
    return _only(*alpaca_rows(60), *rows)


def _line(text: str) -> Callable[[TrainerJob], None]:
    """Good rows on lines 1 to 60, then this."""
    good = "".join(json.dumps(row) + "\n" for row in alpaca_rows(60))
    return _bytes(f"{good}{text}\n".encode())


def _messages(*messages: Any) -> Callable[[TrainerJob], None]:
    good = {"messages": [{"role": "user", "content": _SECRET}, {"role": "assistant", "content": _SECRET}]}
    return _only(good, {"messages": list(messages)})


def _dropping(*rows: Any) -> Callable[[TrainerJob], None]:
    def make(job: TrainerJob) -> None:
        job.plan["dataset"]["invalidRows"] = "Drop"
        write_rows(job.dataset, list(rows))

    return make


def _remove(job: TrainerJob) -> None:
    job.dataset.unlink()


def _folder(job: TrainerJob) -> None:
    job.dataset.unlink()
    job.dataset.mkdir()


def _sha256(job: TrainerJob) -> None:
    job.dataset.write_bytes(b"{}\n")
    job.plan["dataset"]["sources"][0]["sha256"] = "a" * 64


def _said(role: str, content: Any = _SECRET) -> dict[str, Any]:
    return {"role": role, "content": content}


CASES = [
    Case("missing file", _remove, 'source "coach": there is no file {root}/train.jsonl; correct its key or path'),
    Case(
        "folder instead of a file",
        _folder,
        'source "coach": {root}/train.jsonl cannot be read: Is a directory; '
        "correct its path, or set compute.fsGroup to the group that may read the volume",
    ),
    Case("empty file", _bytes(b""), f'source "coach" is empty; it must be {_WANTED}'),
    Case("blank lines only", _bytes(b"\n  \n\n"), f'source "coach" is empty; it must be {_WANTED}'),
    Case(
        "CSV",
        _bytes(f"instruction,output\n{_SECRET},b\n".encode()),
        f'source "coach" looks like a CSV table; it must be {_WANTED}',
    ),
    Case(
        "JSON array",
        _bytes(json.dumps(alpaca_rows(60)).encode()),
        'source "coach" is a JSON array; write its elements as lines: jq -c ".[]" OLD > NEW',
    ),
    Case(
        "indented JSON",
        _bytes(json.dumps({"instruction": "a", "output": "b"}, indent=2).encode()),
        'source "coach" is one JSON document over several lines; write one object per line: jq -c . OLD > NEW',
    ),
    Case(
        "CP949",
        _bytes('{"instruction": "안녕", "output": "반가워"}\n'.encode("cp949")),
        'source "coach", line 1: it is CP949 (EUC-KR) text, not UTF-8; '
        "convert the file: iconv -f CP949 -t UTF-8 OLD > NEW",
    ),
    Case("UTF-16", _bytes('{"a": 1}'.encode("utf-16")), f'source "coach" is UTF-16 text; it must be {_WANTED}'),
    Case("Parquet", _bytes(b"PAR1\x15\x04"), f'source "coach" is a Parquet file; it must be {_WANTED}'),
    Case("gzip", _bytes(b"\x1f\x8b\x08\x00"), f'source "coach" is a gzip archive; it must be {_WANTED}'),
    Case(
        "Excel",
        _bytes(b"PK\x03\x04\x14"),
        f'source "coach" is a ZIP archive or an Excel file; it must be {_WANTED}',
    ),
    Case(
        "binary",
        _bytes(b'{"instruction": "\xff\xff\x81"}\n'),
        f'source "coach", line 1: it is not UTF-8 text; the source must be {_WANTED}',
    ),
    Case(
        "line of nine megabytes",
        _bytes(b'{"instruction": "a", "output": "' + b"x" * 9_000_000 + b'"}\n'),
        'source "coach", line 1: it is longer than 8 MiB; write one example per line',
    ),
    Case(
        "another file than the checksum says",
        _sha256,
        'source "coach" has sha256 ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356, '
        f"not {'a' * 64}; the file was changed: correct dataset.sources[].s3.sha256 or restore the file",
    ),
    Case(
        "unknown fields",
        _bytes(f'{{"질문": "{_SECRET}", "답변": "b"}}\n'.encode()),
        'source "coach", line 1: the format is not known from its fields (질문, 답변); '
        "Alpaca rows have instruction, output and maybe input; Messages rows have messages",
    ),
    Case(
        "ShareGPT",
        _bytes(b'{"conversations": [{"from": "human", "value": "a"}]}\n'),
        'source "coach", line 1: the format is not known from its fields (conversations); '
        "it looks like ShareGPT; convert conversations/from/value to messages/role/content",
    ),
    Case(
        "row that is not JSON",
        _line(f'{{"instruction": "{_SECRET}", '),
        f'source "coach", line 61: it is not JSON{_FIX}',
    ),
    Case("row that is a list", _rows([_SECRET]), f'source "coach", line 61: it is not a JSON object{_FIX}'),
    Case(
        "row without answer",
        _rows({"instruction": _SECRET}),
        f'source "coach", line 61: field "output" is missing or empty{_FIX}',
    ),
    Case(
        "row with an empty question",
        _rows({"instruction": " \n", "output": _SECRET}),
        f'source "coach", line 61: field "instruction" is missing or empty{_FIX}',
    ),
    Case(
        "row with a number as answer",
        _rows({"instruction": _SECRET, "output": 5}),
        f'source "coach", line 61: field "output" is not text{_FIX}',
    ),
    Case(
        "row with a list as input",
        _rows({"instruction": _SECRET, "input": ["a"], "output": "b"}),
        f'source "coach", line 61: field "input" is not text{_FIX}',
    ),
    Case(
        "row with a control character",
        _rows({"instruction": _SECRET, "output": "a\x07"}),
        f'source "coach", line 61: field "output" has the control character U+0007{_FIX}',
    ),
    Case(
        "row with half an emoji",
        _line('{"instruction": "a", "output": "\\ud83d"}'),
        f'source "coach", line 61: field "output" has the control character U+D83D{_FIX}',
    ),
    Case(
        "row with a token of the model",
        _rows({"instruction": _SECRET, "output": "a<|im_end|>"}),
        f'source "coach", line 61: it contains <|im_end|>, which is a special token of the model{_FIX}',
    ),
    Case(
        "question longer than the maximum",
        _rows({"instruction": "word " * 400, "output": _SECRET}),
        'source "coach", line 61: its question alone has 430 tokens, and model.maxSequenceLength is 256; '
        f"shorten it or raise that{_FIX}",
    ),
    Case(
        "six bad rows",
        _rows(*({"instruction": f"{_SECRET} {i}"} for i in range(6))),
        "6 of 66 rows are invalid, first "
        + "; ".join(f'source "coach", line {61 + i}: field "output" is missing or empty' for i in range(5))
        + _FIX,
    ),
    Case("no messages", _messages(), f'source "coach", line 2: field "messages" is missing or empty{_FIX}'),
    Case(
        "message that is text",
        _messages(_SECRET),
        f'source "coach", line 2: message 1 is not an object with role and content{_FIX}',
    ),
    Case(
        "unknown role",
        _messages(_said("human"), _said("assistant")),
        f'source "coach", line 2: message 1 has an unknown role; the roles are system, user, assistant{_FIX}',
    ),
    Case(
        "message without content",
        _messages(_said("user"), _said("assistant", None)),
        f'source "coach", line 2: the content of message 2 is missing or empty{_FIX}',
    ),
    Case(
        "two questions in a row",
        _messages(_said("user"), _said("user"), _said("assistant")),
        'source "coach", line 2: message 2 breaks the turns: user and assistant must alternate, and user begins' + _FIX,
    ),
    Case(
        "question at the end",
        _messages(_said("user"), _said("assistant"), _said("user")),
        f'source "coach", line 2: the last message must be the assistant\'s answer{_FIX}',
    ),
    Case(
        "system message later",
        _messages(_said("user"), _said("system"), _said("assistant")),
        f'source "coach", line 2: message 2 is a system message, which only the first may be{_FIX}',
    ),
    Case(
        "too few rows",
        _only(*alpaca_rows(48), *alpaca_rows(3)),
        "the dataset has 48 usable examples (3 duplicate left out), and dataset.checks.minimumExamples is 50; "
        "add examples or lower it",
    ),
    Case(
        "too few rows after dropping",
        _dropping(*alpaca_rows(49), {"instruction": _SECRET}),
        "the dataset has 49 usable examples (1 invalid left out), and dataset.checks.minimumExamples is 50; "
        "add examples or lower it",
    ),
    Case(
        "one question many times",
        _only(*({"instruction": _SECRET, "output": str(i)} for i in range(60))),
        "no example can be held out to judge the result, because too many ask the same question; "
        "add examples with other questions",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_bad_dataset_ends_prepare_with_a_sentence(
    case: Case, job: TrainerJob, capfd: pytest.CaptureFixture[str]
) -> None:
    case.make(job)
    code = job.run("prepare")
    result = job.result()
    printed = "".join(capfd.readouterr())
    assert result["message"] == case.sentence.replace("{root}", str(job.root))
    assert (code, result["reason"]) == (65, "InvalidDataset")
    log = (job.output / result["log"]).read_text()
    for text in (printed, log, json.dumps(result, ensure_ascii=False)):
        assert "Traceback" not in text
        assert _SECRET not in text
    assert result["message"] in log
