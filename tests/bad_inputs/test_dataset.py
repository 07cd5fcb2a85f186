"""What people upload instead of a good dataset, and the one sentence that each of them gets."""

import json
from typing import Any

import pytest

from tests.bad_inputs.dataset_case import FIX as _FIX
from tests.bad_inputs.dataset_case import SECRET as _SECRET
from tests.bad_inputs.dataset_case import WANTED as _WANTED
from tests.bad_inputs.dataset_case import (
    Case,
    Make,
    after_good_rows,
    check,
    message,
    of_bytes,
    of_rows,
    planned,
)
from tests.support.trainer_job import TrainerJob, alpaca_rows

_NAME_THEM = "name the fields as in dataset.format, or map them in dataset.columns, such as {output: answer}"


def _line(text: str) -> Make:
    """Good rows on lines 1 to 60, then this."""
    good = "".join(json.dumps(row) + "\n" for row in alpaca_rows(60))
    return of_bytes(f"{good}{text}\n")


def _messages(*messages: Any) -> Make:
    good = {"messages": [message("user"), message("assistant")]}
    return of_rows(good, {"messages": list(messages)})


def _array(text: str) -> Make:
    """An array of good rows 1 to 60, then this."""
    return of_bytes(json.dumps(alpaca_rows(60))[:-1] + text)


def _csv(text: str) -> Make:
    """A table of good rows on lines 2 to 61, then this."""
    rows = "".join(f"{row['instruction']},{row['output']}\n" for row in alpaca_rows(60))
    return of_bytes(f"instruction,output\n{rows}{text}")


def _parquet(rows: list[dict[str, Any]], keep: slice = slice(None)) -> Make:
    def make(job: TrainerJob) -> None:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), job.dataset)
        job.dataset.write_bytes(job.dataset.read_bytes()[keep])

    return make


def _empty_parquet(job: TrainerJob) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), job.dataset)


def _words(job: TrainerJob) -> None:
    rows = "".join(json.dumps(row) + "\n" for row in alpaca_rows(60))
    job.dataset.write_text(f"Here are the rows, as asked:\n{rows}")


def _remove(job: TrainerJob) -> None:
    job.dataset.unlink()


def _folder(job: TrainerJob) -> None:
    job.dataset.unlink()
    job.dataset.mkdir()


def _sha256(job: TrainerJob) -> None:
    job.dataset.write_bytes(b"{}\n")
    job.plan["dataset"]["sources"][0]["sha256"] = "a" * 64


CASES = [
    Case("missing file", _remove, 'source "coach": {root}/train.jsonl does not exist; correct its key or path'),
    Case(
        "folder instead of a file",
        _folder,
        'source "coach": {root}/train.jsonl cannot be read: Is a directory; '
        "correct its path, or set compute.fsGroup to a group that may read the volume",
    ),
    Case("empty file", of_bytes(b""), f'source "coach" has no rows; it must be {_WANTED}'),
    Case("blank lines only", of_bytes(b"\n  \n\n"), f'source "coach" has no rows; it must be {_WANTED}'),
    Case("JSON array of nothing", of_bytes("[]"), f'source "coach" has no rows; it must be {_WANTED}'),
    Case(
        "CSV with a header only", of_bytes("instruction,output\n"), f'source "coach" has no rows; it must be {_WANTED}'
    ),
    Case("fences around nothing", of_bytes("```json\n```\n"), f'source "coach" has no rows; it must be {_WANTED}'),
    Case(
        "Parquet without rows",
        _empty_parquet,
        f'source "coach" has no rows; it must be {_WANTED}',
    ),
    Case(
        "JSON array cut off",
        _array(""),
        'source "coach", row 60 (line 1): the file ends here, before the closing bracket; upload the whole file',
    ),
    Case(
        "JSON array cut off in a row",
        _array(f', {{"instruction": "{_SECRET}'),
        'source "coach", row 61 (line 1): the file ends in the middle of it; '
        "add the missing quote or bracket, or upload the whole file",
    ),
    Case(
        "JSON array with a broken row",
        _array(f', {{"instruction": "{_SECRET}" "output": "b"}}]'),
        "source \"coach\", row 61 (line 1): it is not JSON: Expecting ',' delimiter; correct it",
    ),
    Case(
        "JSON array without a comma",
        _array(f'\n{{"instruction": "{_SECRET}", "output": "b"}}]'),
        'source "coach", row 60 (line 2): a comma or the closing bracket is missing after it; add it',
    ),
    Case(
        "JSON array with a row without answer",
        _array(f', {{"instruction": "{_SECRET}"}}]'),
        f'source "coach", row 61: field "output" is missing or empty{_FIX}',
    ),
    Case("JSON array of texts", _array(f', "{_SECRET}"]'), f'source "coach", row 61: it is not a JSON object{_FIX}'),
    Case(
        "two lists in one object",
        of_bytes(json.dumps({"train": alpaca_rows(60), "test": alpaca_rows(5)})),
        'source "coach" has more than one list; leave only the list of rows in the file',
    ),
    Case(
        "indented object without an answer",
        of_bytes(json.dumps({"instruction": _SECRET, "output": ""}, indent=2)),
        f'source "coach", row 1: field "output" is missing or empty{_FIX}',
    ),
    Case(
        "JSON nested without end",
        of_bytes("[" * 100_000),
        'source "coach", row 1 (line 1): it has a number that is too long, or brackets that are nested too deeply; '
        "correct it",
    ),
    Case(
        "row of nine megabytes in an array",
        _array(', {"instruction": "a", "output": "' + "x" * 9_000_000 + '"}]'),
        'source "coach", row 61 (line 1): it is longer than 8,000,000 characters; shorten it',
    ),
    Case(
        "CSV row with a cell too many",
        _csv(f"{_SECRET},b,c\n"),
        f'source "coach", line 62: it has 3 cells, and the header has 2{_FIX}',
    ),
    Case(
        "CSV row with wrong quotes",
        _csv(f'"{_SECRET}" b,c\n'),
        f'source "coach", line 62: its quotes are broken: a quote inside a quoted cell must be written twice{_FIX}',
    ),
    Case(
        "CSV row whose quote stays open",
        _csv(f'"{_SECRET},c\n'),
        'source "coach", line 62: a quoted cell of this row does not end; add the closing quote',
    ),
    Case(
        "CSV row with an empty answer after a long cell",
        _csv(f'"{_SECRET}\nb",\n'),
        f'source "coach", line 62: field "output" is missing or empty{_FIX}',
    ),
    Case(
        "CSV with two columns of one name",
        of_bytes(f"output,output\n{_SECRET},b\n"),
        'source "coach": columns 1 and 2 of its header have the same name; rename one',
    ),
    Case(
        "CSV without a header",
        of_bytes(f"오늘 {_SECRET}을 물었어요?,네 그럼요!\n{_SECRET},b\n"),
        'source "coach", line 2: the format is not known from its fields ((not a name), (not a name)); '
        f"a table begins with a line of the names of its fields; {_NAME_THEM}",
    ),
    Case(
        "CSV of other columns",
        of_bytes(f"질문;답변\n{_SECRET};b\n"),
        f'source "coach", line 2: the format is not known from its fields (질문, 답변); {_NAME_THEM}',
    ),
    Case(
        "plain text", of_bytes(f"{_SECRET}\n{_SECRET}\n"), f'source "coach" is text without rows; it must be {_WANTED}'
    ),
    Case(
        "words before the rows", _words, f'source "coach", line 1: it is not JSON: Expecting value (character 1){_FIX}'
    ),
    Case(
        "CP949 row without answer",
        of_bytes(f'{{"instruction": "{_SECRET}"}}\n{{"instruction": "a", "output": "b"}}'.encode("cp949")),
        'source "coach", line 1: the format is not known from its fields (instruction); '
        f"Alpaca rows also have output; {_NAME_THEM}",
    ),
    Case(
        "Chinese text",
        of_bytes('{"instruction": "你好，请告诉我怎么做深蹲运动"}'.encode("gbk")),
        'source "coach", line 1: it is neither UTF-8 nor CP949 (EUC-KR) text; save the file as UTF-8',
    ),
    Case(
        "UTF-16 cut off",
        of_bytes('{"instruction": "가"}'.encode("utf-16")[:-1]),
        'source "coach", line 1: it is not UTF-16 text, although its byte order mark says so',
    ),
    Case(
        "UTF-16 without a mark",
        of_bytes('{"instruction": "a"}'.encode("utf-16-le")),
        f'source "coach" is not text; it must be {_WANTED}',
    ),
    Case(
        "UTF-16 row without answer",
        of_bytes(f'{{"instruction": "{_SECRET}", "output": ""}}'.encode("utf-16")),
        f'source "coach", line 1: field "output" is missing or empty{_FIX}',
    ),
    Case(
        "Parquet cut off",
        _parquet(alpaca_rows(60), slice(-8)),
        'source "coach" is a Parquet file that cannot be read beyond row 0 (ArrowInvalid); write it again',
    ),
    Case(
        "Parquet row without answer",
        _parquet([*alpaca_rows(60), {"instruction": _SECRET, "output": None}]),
        f'source "coach", row 61: field "output" is missing or empty{_FIX}',
    ),
    Case(
        "Parquet of other columns",
        _parquet([{"question": _SECRET, "answer": "b"}]),
        f'source "coach", row 1: the format is not known from its fields (question, answer); {_NAME_THEM}',
    ),
    Case("gzip", of_bytes(b"\x1f\x8b\x08\x00"), f'source "coach" is a gzip archive; it must be {_WANTED}'),
    Case(
        "old Excel",
        of_bytes(b"\xd0\xcf\x11\xe0\xa1"),
        f'source "coach" is an old Excel or Hangul Word Processor file; it must be {_WANTED}',
    ),
    Case("PDF", of_bytes(b"%PDF-1.7\n"), f'source "coach" is a PDF file; it must be {_WANTED}'),
    Case("Arrow", of_bytes(b"ARROW1\0\0"), f'source "coach" is an Arrow file; it must be {_WANTED}'),
    Case("picture", of_bytes(b"\x89PNG\r\n\x1a\n\0\0\0"), f'source "coach" is not text; it must be {_WANTED}'),
    Case(
        "Excel",
        of_bytes(b"PK\x03\x04\x14"),
        f'source "coach" is a ZIP archive or an Excel file; it must be {_WANTED}',
    ),
    Case(
        "binary",
        of_bytes(b'{"instruction": "\xff\xff\x81"}\n'),
        'source "coach", line 1: it is neither UTF-8 nor CP949 (EUC-KR) text; save the file as UTF-8',
    ),
    Case(
        "line of nine megabytes",
        of_bytes(b'{"instruction": "a", "output": "' + b"x" * 9_000_000 + b'"}\n'),
        'source "coach", line 1: it is longer than 8,000,000 characters; write one example per line',
    ),
    Case(
        "another file than the checksum says",
        _sha256,
        'source "coach" has sha256 ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356, '
        f"not {'a' * 64}; the file was changed: correct dataset.sources[].s3.sha256 or restore the file",
    ),
    Case(
        "unknown fields",
        of_bytes(f'{{"질문": "{_SECRET}", "답변": "b"}}\n'.encode()),
        f'source "coach", line 1: the format is not known from its fields (질문, 답변); {_NAME_THEM}',
    ),
    Case(
        "row that is not JSON",
        _line(f' {{"instruction": "{_SECRET}" "output": "b"}}'),
        f"source \"coach\", line 61: it is not JSON: Expecting ',' delimiter (character {len(_SECRET) + 21}){_FIX}",
    ),
    Case("row that is a list", after_good_rows([_SECRET]), f'source "coach", line 61: it is not a JSON object{_FIX}'),
    Case(
        "row without answer",
        after_good_rows({"instruction": _SECRET}),
        f'source "coach", line 61: field "output" is missing or empty{_FIX}',
    ),
    Case(
        "row with an empty question",
        after_good_rows({"instruction": " \n", "output": _SECRET}),
        f'source "coach", line 61: field "instruction" is missing or empty{_FIX}',
    ),
    Case(
        "row with a number as answer",
        after_good_rows({"instruction": _SECRET, "output": 5}),
        f'source "coach", line 61: field "output" is not text{_FIX}',
    ),
    Case(
        "row with a list as input",
        after_good_rows({"instruction": _SECRET, "input": ["a"], "output": "b"}),
        f'source "coach", line 61: field "input" is not text{_FIX}',
    ),
    Case(
        "row with a control character",
        after_good_rows({"instruction": _SECRET, "output": "a\x07"}),
        f'source "coach", line 61: field "output" has the control character U+0007{_FIX}',
    ),
    Case(
        "row with half an emoji",
        _line('{"instruction": "a", "output": "\\ud83d"}'),
        f'source "coach", line 61: field "output" has the control character U+D83D{_FIX}',
    ),
    Case(
        "row with a token of the model",
        after_good_rows({"instruction": _SECRET, "output": "a<|im_end|>"}),
        f'source "coach", line 61: it contains <|im_end|>, which is a special token of the model{_FIX}',
    ),
    Case(
        "question longer than the maximum",
        after_good_rows({"instruction": "word " * 400, "output": _SECRET}),
        'source "coach", line 61: its question alone has 430 tokens, and model.maxSequenceLength is 256; '
        f"shorten it or raise that{_FIX}",
    ),
    Case(
        "six bad rows",
        after_good_rows(*({"instruction": f"{_SECRET} {i}"} for i in range(6))),
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
        _messages(message("human"), message("assistant")),
        f'source "coach", line 2: message 1 has an unknown role; the roles are system, user, assistant{_FIX}',
    ),
    Case(
        "message without content",
        _messages(message("user"), message("assistant", None)),
        f'source "coach", line 2: the content of message 2 is missing or empty{_FIX}',
    ),
    Case(
        "two questions in a row",
        _messages(message("user"), message("user"), message("assistant")),
        'source "coach", line 2: message 2 breaks the turns: user and assistant must alternate, and user begins' + _FIX,
    ),
    Case(
        "question at the end",
        _messages(message("user"), message("assistant"), message("user")),
        f'source "coach", line 2: the last message must be the assistant\'s answer{_FIX}',
    ),
    Case(
        "system message later",
        _messages(message("user"), message("system"), message("assistant")),
        f'source "coach", line 2: message 2 is a system message, which only the first may be{_FIX}',
    ),
    Case(
        "too few rows",
        of_rows(*alpaca_rows(48), *alpaca_rows(3)),
        "the dataset has 48 usable examples (3 duplicate left out), and dataset.checks.minimumExamples is 50; "
        "add examples or lower it",
    ),
    Case(
        "too few rows after dropping",
        planned(of_rows(*alpaca_rows(49), {"instruction": _SECRET}), invalidRows="Drop"),
        "the dataset has 49 usable examples (1 invalid left out), and dataset.checks.minimumExamples is 50; "
        "add examples or lower it",
    ),
    Case(
        "one question many times",
        of_rows(*({"instruction": _SECRET, "output": str(i)} for i in range(60))),
        "no example can be held out to judge the result, because too many have the same question; "
        "add examples with other questions",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_bad_dataset_ends_prepare_with_a_sentence(
    case: Case, job: TrainerJob, capfd: pytest.CaptureFixture[str]
) -> None:
    check(case, job, capfd)
