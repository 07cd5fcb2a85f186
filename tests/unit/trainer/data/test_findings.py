"""What is said of all rows together, and which of them stay."""

from pathlib import Path
from typing import Any, Literal

import pytest

from finetune_api.report import CheckReport
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.rows import collect
from finetune_trainer.data.split import holdout_rows
from finetune_trainer.errors import DatasetError
from finetune_trainer.sources.dataset_file import local_file
from tests.support.trainer_job import write_rows

_LONG = (
    "발을 어깨 너비로 벌리고 발끝은 살짝 바깥으로 둔 뒤, 엉덩이를 뒤로 빼면서 천천히 앉으세요. "
    "무릎이 발끝 방향을 따라가게 하고 허리는 곧게 유지합니다."
)
_ROW = {"instruction": "스쿼트 자세 알려줘", "output": _LONG}
_NEAR = _ROW | {"output": _LONG.replace("천천히 앉으세요", "천천히 앉으십시오")}
_OTHER = {"instruction": "물은 얼마나 마셔요?", "output": "하루 2리터쯤이면 충분해요."}


def _findings(
    path: Path,
    *rows: Any,
    holdout: list[Any] | None = None,
    duplicates: Literal["Drop", "Keep"] = "Drop",
    method: Any = "SFT",
) -> Findings:
    held = [local_file("held", write_rows(path / "held", holdout))] if holdout else []
    sources = [local_file("coach", write_rows(path / "coach", list(rows)))]
    return Findings(collect.collect(sources, {}, method, holdout_sources=held), duplicates)


def _check(found: Findings, name: str) -> CheckReport | None:
    return next((c for c in found.checks if c.name == name), None)


def _lines(check: CheckReport | None) -> list[int]:
    assert check is not None
    return [place.number for place in check.places]


def test_first_of_duplicates_stays(tmp_path: Path) -> None:
    found = _findings(tmp_path, _ROW, _OTHER, _ROW | {"instruction": " 스쿼트 자세 알려줘\n"}, _NEAR)
    assert found.kept.tolist() == [True, True, False, False]
    assert (found.duplicates.exact, found.duplicates.near) == (1, 1)
    assert _lines(_check(found, "ExactDuplicates")) == [3]
    assert _lines(_check(found, "NearDuplicates")) == [4]


def test_duplicates_may_be_kept_and_are_one_group(tmp_path: Path) -> None:
    found = _findings(tmp_path, _ROW, _OTHER, _ROW, _ROW | {"instruction": "스쿼트 자세를 알려줘"}, duplicates="Keep")
    assert found.kept.all()
    assert found.group.tolist() == [0, 1, 0, 0]
    assert [c.severity for c in found.checks if "Duplicates" in c.name] == ["Warn", "Warn"]


def test_rows_that_differ_in_a_number_are_no_duplicates(tmp_path: Path) -> None:
    rows = [{"instruction": f"체중 {kg}kg인데 스쿼트 자세 알려줘", "output": _LONG} for kg in (60, 70)]
    assert _findings(tmp_path, *rows).kept.all()


def test_rows_that_are_judged_otherwise_are_no_duplicates(tmp_path: Path) -> None:
    row = {"prompt": "스쿼트 자세 알려줘", "completion": _LONG}
    assert _findings(tmp_path, row | {"label": True}, row | {"label": False}, method="KTO").kept.all()


def test_rows_of_the_holdout_are_not_trained_on(tmp_path: Path) -> None:
    found = _findings(tmp_path, _OTHER, _NEAR, _ROW, {"instruction": "잠", "output": "많이"}, holdout=[_ROW, _OTHER])
    assert found.kept.tolist() == [False, False, False, True, True, True]
    check = _check(found, "HoldoutInTraining")
    assert _lines(check) == [1, 2, 3]
    assert check is not None
    assert check.message == (
        "also in dataset.holdout.sources and not trained on: 3 rows of dataset.sources, "
        'first source "coach", lines 1, 2 and 3'
    )


def test_rows_of_the_holdout_are_not_trained_on_where_duplicates_are_kept(tmp_path: Path) -> None:
    found = _findings(tmp_path, _ROW, _ROW, _OTHER, holdout=[_ROW], duplicates="Keep")
    assert found.kept.tolist() == [False, False, True, True]


def test_own_holdout_is_taken_as_it_is(tmp_path: Path) -> None:
    found = _findings(tmp_path, _OTHER, holdout=[_ROW])
    assert holdout_rows(found, 5, 1, own=True).tolist() == [False, True]


def test_own_holdout_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    found = _findings(tmp_path, _OTHER, holdout=[{"instruction": "a", "output": ""}])
    with pytest.raises(DatasetError, match=r"dataset\.holdout\.sources have no usable example"):
        holdout_rows(found, 5, 1, own=True)


def test_conversations_that_begin_alike_are_one_group(tmp_path: Path) -> None:
    first = [{"role": "user", "content": "안녕?"}, {"role": "assistant", "content": "네."}]
    more = [{"role": "user", "content": "또?"}, {"role": "assistant", "content": "그럼요."}]
    found = _findings(tmp_path, {"messages": first}, {"messages": [*first, *more]}, {"messages": more})
    assert found.group.tolist() == [0, 0, 2]


def test_conversations_that_begin_with_a_greeting_are_reported_by_what_follows(tmp_path: Path) -> None:
    greeting = [{"role": "user", "content": "안녕하세요!"}, {"role": "assistant", "content": "네, 말씀하세요."}]

    def talk(number: int, *more: str) -> dict[str, Any]:
        turns = [{"role": r, "content": c} for q in (f"{number}번 운동은?", *more) for r, c in _answered(q)]
        return {"messages": [*greeting, *turns]}

    found = _findings(tmp_path, *(talk(i) for i in range(60)), talk(7, "더 자세히요."))
    assert found.group.tolist() == [*range(60), 7]
    held = holdout_rows(found, 5, 1, own=False)
    assert held.sum() == 12
    assert held.nonzero()[0].tolist() != list(range(12))


def _answered(question: str) -> list[tuple[str, str]]:
    return [("user", question), ("assistant", f"{question} 좋아요.")]


def test_an_input_makes_another_question(tmp_path: Path) -> None:
    row = {"instruction": "요약해줘", "output": "짧게."}
    found = _findings(tmp_path, row | {"input": "긴 글"}, row | {"input": "다른 글"})
    assert found.group.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "rows", "lines"),
    [
        ("PersonalData", [_ROW, _OTHER | {"output": "kim@naver.com 으로 보내세요."}], [2]),
        ("Refusals", [_ROW, _OTHER | {"output": "죄송하지만 답변드릴 수 없습니다."}], [2]),
        (
            "CutOffAnswers",
            [{"instruction": str(i), "output": _LONG * 2} for i in range(9)]
            + [{"instruction": "끝", "output": f"{_LONG} {_LONG} 그리고 엉덩이를 뒤로 빼면서"}],
            [10],
        ),
        ("DifferentAnswers", [_OTHER, _OTHER | {"output": "아무 때나요."}], [2]),
        (
            "AnswerRepeatsPrompt",
            [_ROW, {"instruction": "물", "output": "물."}, {"instruction": "a", "output": "a"}],
            [3],
        ),
        ("AnswerRepeatsPrompt", [_ROW, {"instruction": "번역", "input": "안녕", "output": "안녕"}], [2]),
        (
            "RepeatedAnswer",
            [_OTHER, *({"instruction": f"질문 {i}", "output": _LONG} for i in range(10))],
            [2, 3, 4, 5, 6],
        ),
    ],
)
def test_odd_answers_are_reported_and_stay(tmp_path: Path, name: str, rows: list[Any], lines: list[int]) -> None:
    found = _findings(tmp_path, *rows)
    assert [c.name for c in found.checks] == [name]
    assert _lines(found.checks[0]) == lines
    assert found.checks[0].severity == "Warn"
    assert found.kept.all()


def test_good_rows_have_no_findings(tmp_path: Path) -> None:
    assert _findings(tmp_path, _ROW, _OTHER).checks == []


def test_a_bad_answer_may_be_a_refusal_and_answers_may_differ(tmp_path: Path) -> None:
    rows = [
        {"prompt": "물?", "completion": "죄송하지만 답변드릴 수 없습니다.", "label": False},
        {"prompt": "물?", "completion": "하루 2리터요.", "label": True},
    ]
    assert _findings(tmp_path, *rows, method="KTO").checks == []


def test_messages_name_rows_and_never_show_them(tmp_path: Path) -> None:
    secret = "비밀문장"
    rows = [_ROW] * 3 + [{"instruction": secret, "output": f"{secret} 010-2345-{i:04}"} for i in range(7)]
    found = _findings(tmp_path, *rows)
    said = " ".join(c.model_dump_json() for c in found.checks)
    assert secret not in said
    assert "2345" not in said
    assert 'source \\"coach\\", lines 4, 5 and 6' in said


def test_a_rejected_row_is_named_with_its_reason(tmp_path: Path) -> None:
    found = _findings(tmp_path, _ROW, {"instruction": "a"})
    found.reject(0, "it is too long")
    assert [(p.number, p.reason) for p in found.invalid_places] == [
        (2, 'field "output" is missing or empty'),
        (1, "it is too long"),
    ]
    assert (found.invalid, found.examples) == (2, 0)
