"""Rows that can be read and are odd all the same, odd settings of the checks, and odd calls of `prepare --check`."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from finetune_trainer.cli import main
from tests.bad_inputs.dataset_case import FIX, SECRET, Case, Make, check, of_bytes, of_rows, planned
from tests.support.trainer_job import TrainerJob, alpaca_rows, write_rows

_GOOD = 150
_LONG = f"{SECRET} 발을 어깨 너비로 벌리고 발끝은 살짝 바깥으로 둔 뒤, 엉덩이를 뒤로 빼면서 천천히 앉으세요."
_CUT = f"{_LONG} {_LONG} 이렇게 하면 됩니다. 그리고 무릎을"
_TOO_LONG = f"{SECRET} " * 100
_KEEP = "; if they are intended, set dataset.checks.duplicates to Keep"


def _row(question: str, answer: str) -> dict[str, str]:
    return {"instruction": f"{SECRET} {question}", "output": answer}


def _pair(index: int, chosen: str = "좋아", rejected: str = "싫어") -> dict[str, str]:
    return {"prompt": f"{index}번 운동은 어때?", "chosen": chosen, "rejected": rejected}


def _pairs(*last: dict[str, str]) -> Make:
    return planned(of_rows(*(_pair(i) for i in range(60)), *last), method="DPO")


def _held(rows: list[Any], held: list[Any], **dataset: Any) -> Make:
    """Training rows, and a hold-out source with rows of its own."""

    def make(job: TrainerJob) -> None:
        path = write_rows(job.root / "held.jsonl", held)
        job.plan["dataset"]["holdoutSources"] = [{"name": "held", "path": str(path)}]
        planned(of_rows(*rows), **dataset)(job)

    return make


FAILURES = [
    Case(
        "answers to choose from are the same",
        _pairs(_pair(60, SECRET, f" {SECRET}\n")),
        f'source "coach", line 61: its chosen and rejected answers are the same{FIX}',
    ),
    Case(
        "answers to choose from differ after the maximum only",
        _pairs(_pair(60, f"{_TOO_LONG}좋아", f"{_TOO_LONG}싫어")),
        'source "coach", line 61: its two answers are the same in the first 256 tokens, which is '
        f"model.maxSequenceLength; correct it or raise that{FIX}",
    ),
    Case(
        "truncated row that is refused",
        planned(of_rows(*alpaca_rows(60), _row("뭐야?", _TOO_LONG)), truncation="Fail"),
        'longer than model.maxSequenceLength (256) and refused: 1 row, first source "coach", line 61; '
        "shorten them or raise it, or set dataset.checks.truncation to Drop or Warn",
    ),
    Case(
        "several truncated rows that are refused",
        planned(of_rows(*alpaca_rows(60), *(_row(f"{i}?", _TOO_LONG + str(i)) for i in range(5))), truncation="Fail"),
        'longer than model.maxSequenceLength (256) and refused: 5 rows, first source "coach", lines 61, 62 and 63; '
        "shorten them or raise it, or set dataset.checks.truncation to Drop or Warn",
    ),
    Case(
        "too few without the truncated rows",
        planned(of_rows(*alpaca_rows(49), _row("뭐야?", _TOO_LONG)), truncation="Drop"),
        "the dataset has 49 usable examples (1 too long left out), and dataset.checks.minimumExamples is 50; "
        "add examples or lower it",
    ),
    Case(
        "one row copied",
        of_rows(*[_row("스쿼트?", _LONG)] * 60),
        "the dataset has 1 usable examples (59 duplicate left out), and dataset.checks.minimumExamples is 50; "
        "add examples or lower it",
    ),
    Case(
        "one row with other signs",
        of_rows(*(_row("스쿼트?", _LONG + "!" * i) for i in range(60))),
        "the dataset has 1 usable examples (59 duplicate left out), and dataset.checks.minimumExamples is 50; "
        "add examples or lower it",
    ),
    Case(
        "a million examples asked for",
        planned(of_rows(*alpaca_rows(60)), minimumExamples=1_000_000),
        "the dataset has 60 usable examples, and dataset.checks.minimumExamples is 1000000; add examples or lower it",
    ),
    Case(
        "copies that are kept cannot be held out",
        planned(of_rows(*[_row("스쿼트?", _LONG)] * 60), duplicates="Keep"),
        "no example can be held out to judge the result, because too many have the same question; "
        "add examples with other questions",
    ),
    Case(
        "everything is in the hold-out too",
        _held(alpaca_rows(60), alpaca_rows(60)),
        "the dataset has 0 usable examples (60 duplicate left out), and dataset.checks.minimumExamples is 50; "
        "add examples or lower it",
    ),
    Case(
        "hold-out without a valid row",
        _held(alpaca_rows(60), [{"instruction": SECRET, "output": ""}], invalidRows="Drop"),
        "dataset.holdout.sources have no usable example; correct them, or leave them out",
    ),
    Case(
        "invalid row in the hold-out",
        _held(alpaca_rows(60), [*alpaca_rows(2), {"instruction": SECRET, "output": ""}]),
        f'source "held", line 3: field "output" is missing or empty{FIX}',
    ),
    Case(
        "hold-out for another method",
        _held(alpaca_rows(60), [_pair(1)]),
        'source "held" has Preference rows, and training.method SFT learns from Alpaca, ShareGPT, Messages, '
        "PromptCompletion or Text rows; set training.method to DPO or ORPO, or use other data",
    ),
    Case(
        "control character in an answer",
        of_rows(*alpaca_rows(60), _row("뭐야?", f"{SECRET}\x1b[31m")),
        f'source "coach", line 61: field "output" has the control character U+001B{FIX}',
    ),
    Case(
        "half of a letter in a question",
        # JSON can spell what UTF-8 cannot.
        of_bytes(
            "".join(f"{json.dumps(r)}\n" for r in (*alpaca_rows(60), {"instruction": "\ud83d", "output": SECRET}))
        ),
        f'source "coach", line 61: field "instruction" has the control character U+D83D{FIX}',
    ),
]


@pytest.mark.parametrize("case", FAILURES, ids=lambda c: c.name)
def test_such_a_dataset_ends_prepare_with_a_sentence(
    case: Case, job: TrainerJob, capfd: pytest.CaptureFixture[str]
) -> None:
    check(case, job, capfd)


class Odd(NamedTuple):
    name: str
    make: Make
    warnings: list[str]
    examples: int


def _after(*rows: Any, **dataset: Any) -> Make:
    """Enough good rows for no other warning on lines 1 to 150, then these."""
    return planned(of_rows(*alpaca_rows(_GOOD), *rows), **dataset)


def _longer(make: Make) -> Make:
    """The same with room for long answers."""

    def made(job: TrainerJob) -> None:
        job.plan["model"]["maxSequenceLength"] = 512
        make(job)

    return made


WARNINGS = [
    Odd("good rows", _after(), [], 150),
    Odd(
        "copies",
        _after(_row("스쿼트?", _LONG), _row("스쿼트?", _LONG)),
        [f'ExactDuplicates: the same as an earlier row and left out: 1 row, first source "coach", line 152{_KEEP}'],
        151,
    ),
    Odd(
        "near copies",
        _after(_row("스쿼트?", _LONG), _row("스쿼트!", _LONG), _row("스쿼트", _LONG)),
        [
            "NearDuplicates: nearly the same as an earlier row and left out: 2 rows, "
            f'first source "coach", lines 152 and 153{_KEEP}'
        ],
        151,
    ),
    Odd(
        "near copies that are kept",
        _after(_row("스쿼트?", _LONG), _row("스쿼트!", _LONG), duplicates="Keep"),
        [
            "NearDuplicates: nearly the same as an earlier row and kept: 1 row, "
            'first source "coach", line 152; they weigh more than other rows; '
            "set dataset.checks.duplicates to Drop to leave them out"
        ],
        152,
    ),
    Odd(
        "truncated row",
        _after(_row("뭐야?", _TOO_LONG)),
        [
            'TruncatedRows: longer than model.maxSequenceLength (256) and cut: 1 row, first source "coach", line 151; '
            "shorten them or raise it"
        ],
        151,
    ),
    Odd(
        "truncated row that is dropped",
        _after(_row("뭐야?", _TOO_LONG), truncation="Drop"),
        [
            "TruncatedRows: longer than model.maxSequenceLength (256) and left out: 1 row, "
            'first source "coach", line 151; shorten them or raise it'
        ],
        150,
    ),
    Odd(
        "invalid row that is dropped",
        _after({"instruction": SECRET}, invalidRows="Drop"),
        [
            'InvalidRows: invalid and left out: 1 row of 151, first source "coach", line 151: '
            'field "output" is missing or empty'
        ],
        150,
    ),
    Odd(
        "row of the hold-out",
        _held([*alpaca_rows(_GOOD), _row("스쿼트?", _LONG)], [_row("스쿼트?", _LONG), _row("물?", "하루 2리터요.")]),
        [
            "HoldoutInTraining: also in dataset.holdout.sources and not trained on: 1 row of dataset.sources, "
            'first source "coach", line 151'
        ],
        152,
    ),
    Odd(
        "resident number",
        _after(_row("누구?", f"{SECRET} 900101-1234567입니다.")),
        [
            "PersonalData: in 1 row there seems to be personal data (resident registration numbers), "
            'first source "coach", line 151; the model may repeat it to anyone; remove it'
        ],
        151,
    ),
    Odd(
        "phone, card and e-mail",
        _after(
            _row("전화?", "010-2345-6789로 하세요."),
            _row("카드?", "4111-1111-1111-1111입니다."),
            _row("메일?", "kim@naver.com입니다."),
        ),
        [
            "PersonalData: in 3 rows there seems to be personal data (card numbers, phone numbers, e-mail addresses), "
            'first source "coach", lines 151, 152 and 153; the model may repeat it to anyone; remove it'
        ],
        153,
    ),
    Odd(
        "refusals",
        _after(_row("약?", "죄송하지만 답변드릴 수 없습니다."), _row("법?", "I'm sorry, but I can't help with that.")),
        [
            'Refusals: in 2 rows the answer begins with a refusal, first source "coach", lines 151 and 152; '
            "the model learns to refuse; remove them unless that is intended"
        ],
        152,
    ),
    Odd(
        "cut answer",
        _longer(
            _after(*(_row(f"{i}?", f"{_LONG} {_LONG} 이렇게 하면 됩니다. {i}번.") for i in range(4)), _row("끝?", _CUT))
        ),
        [
            "CutOffAnswers: in 1 row a long answer stops in the middle of a sentence, "
            'first source "coach", line 155; the model learns to stop there; complete them'
        ],
        155,
    ),
    Odd(
        "two answers to one question",
        _after(_row("물?", "하루 2리터요."), _row(" 물 ?", "아무 때나요.")),
        [
            "DifferentAnswers: in 1 row the prompt is that of an earlier row and the answer is different, "
            'first source "coach", line 152; the model learns a mixture; keep the best answer'
        ],
        152,
    ),
    Odd(
        "answer that is the input",
        _after({"instruction": "번역", "input": SECRET, "output": SECRET}),
        [
            'AnswerRepeatsPrompt: in 1 row the answer only repeats the prompt, first source "coach", line 151; '
            "correct them"
        ],
        151,
    ),
    Odd(
        "one answer to everything",
        _after(*(_row(f"질문 {i}", _LONG) for i in range(10))),
        [
            "RepeatedAnswer: in 10 rows the answer is the same as for very many other prompts, "
            'first source "coach", lines 151, 152 and 153; '
            "the model learns to always give it; vary it or remove some rows"
        ],
        160,
    ),
    Odd(
        "few rows",
        of_rows(*alpaca_rows(60)),
        ["SmallDataset: 60 examples are few; with 100 or more, results vary less"],
        60,
    ),
    Odd(
        "decomposed letters",
        _after(_row("뭐야?", unicodedata.normalize("NFD", "가나다라마바사."))),
        ['TextComposed: source "coach" has decomposed letters (NFD) in 1 row, which were composed (NFC)'],
        151,
    ),
]


@pytest.mark.parametrize("case", WARNINGS, ids=lambda c: c.name)
def test_odd_rows_are_reported_in_the_status(case: Odd, job: TrainerJob, capfd: pytest.CaptureFixture[str]) -> None:
    case.make(job)
    assert job.run("prepare") == 0
    result = job.result()
    assert result["dataset"].get("warnings", []) == case.warnings
    assert result["dataset"]["examples"] == case.examples
    log = (job.output / result["log"]).read_text()
    assert SECRET not in "".join([json.dumps(result, ensure_ascii=False), log, *capfd.readouterr()])


class Call(NamedTuple):
    name: str
    arguments: list[str]
    code: int
    error: str


def _csv(path: Path) -> None:
    path.write_text("질문,답변\n" + "".join(f"{i}번?,{i}번이야.\n" for i in range(120)), encoding="utf-8")


FILES: dict[str, Callable[[Path], object]] = {
    "good.jsonl": lambda path: write_rows(path, alpaca_rows(120)),
    "bad.jsonl": lambda path: write_rows(path, [*alpaca_rows(60), {"instruction": SECRET}]),
    "few.jsonl": lambda path: write_rows(path, alpaca_rows(3)),
    "same.jsonl": lambda path: write_rows(path, [_row("?", f"{i}번.") for i in range(60)]),
    "empty.jsonl": lambda path: path.write_bytes(b""),
    "pairs.jsonl": lambda path: write_rows(path, [_pair(i) for i in range(60)]),
    "korean.csv": _csv,
    "folder": lambda path: path.mkdir(),
}
CALLS = [
    Call("good rows", ["good.jsonl"], 0, ""),
    Call("two files", ["good.jsonl", "few.jsonl"], 0, ""),
    Call("pairs", ["pairs.jsonl"], 0, ""),
    Call("mapped columns", ["korean.csv", "--column", "instruction=질문", "--column", "output=답변"], 0, ""),
    Call("invalid row", ["bad.jsonl"], 65, ""),
    Call("few rows", ["few.jsonl"], 65, ""),
    Call("one question", ["same.jsonl"], 65, ""),
    Call("no file", ["none.jsonl"], 64, "none.jsonl does not exist\n"),
    Call("folder", ["folder"], 64, "folder is a folder; name the files in it\n"),
    Call("no tokenizer", ["good.jsonl", "--tokenizer", "none"], 64, "none does not exist\n"),
    Call(
        "folder without a tokenizer",
        ["good.jsonl", "--tokenizer", "folder"],
        64,
        "--tokenizer folder is not a folder with a tokenizer, such as tokenizer.json\n",
    ),
    Call(
        "column without a name",
        ["good.jsonl", "--column", "output"],
        64,
        '--column "output" must be OURS=THEIRS, such as output=answer; ours are instruction, input, output, system, '
        "messages, conversations, prompt, completion, text, chosen, rejected, label\n",
    ),
    Call(
        "column that is not ours",
        ["good.jsonl", "--column", "질문=instruction"],
        64,
        '--column "질문=instruction" must be OURS=THEIRS, such as output=answer; ours are instruction, input, output, '
        "system, messages, conversations, prompt, completion, text, chosen, rejected, label\n",
    ),
    Call(
        "unmapped columns",
        ["korean.csv"],
        65,
        'source "korean.csv", line 2: the format is not known from its fields (질문, 답변); '
        "name the fields as in dataset.format, or map them in dataset.columns, such as {output: answer}\n",
    ),
    Call(
        "mapped column that no row has",
        ["good.jsonl", "--column", "system=없음"],
        65,
        'source "good.jsonl": dataset.columns maps system to "없음", and no row has that field; '
        "the fields are instruction, input, output\n",
    ),
    Call(
        "report into a folder that is not there",
        ["good.jsonl", "--json", "none/report.json"],
        64,
        "--json none/report.json cannot be written: No such file or directory\n",
    ),
    Call(
        "files for two methods",
        ["good.jsonl", "pairs.jsonl"],
        65,
        'source "pairs.jsonl" has Preference rows, and training.method SFT learns from Alpaca, ShareGPT, Messages, '
        "PromptCompletion or Text rows; set training.method to DPO or ORPO, or use other data\n",
    ),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda c: c.name)
def test_check_ends_with_a_code_and_a_sentence(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINETUNE_SCRATCH", str(tmp_path / "scratch"))
    for name, make in FILES.items():
        make(tmp_path / name)
    assert main(["prepare", "--check", *call.arguments]) == call.code
    printed = capfd.readouterr()
    assert printed.err == call.error
    assert SECRET not in printed.out
    assert ("would reject" in printed.out) is (call.code == 65 and not call.error)
    assert list((tmp_path / "scratch").iterdir()) == []
