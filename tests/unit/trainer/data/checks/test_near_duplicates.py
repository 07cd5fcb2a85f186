"""Rows that say nearly the same: labelled pairs, and what the signatures promise."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.checks import minhash, near_duplicates
from finetune_trainer.data.checks.normal_form import normal_form

_SQUAT = (
    "스쿼트 자세 알려줘",
    "발을 어깨 너비로 벌리고 발끝은 살짝 바깥으로 둔 뒤, 엉덩이를 뒤로 빼면서 천천히 앉으세요. "
    "무릎이 발끝 방향을 따라가게 하고 허리는 곧게 유지합니다.",
)
_ELBOW = (
    "벤치프레스 할 때 팔꿈치가 아픈데 어떻게 해야 하나요?",
    "팔꿈치 통증이 있다면 먼저 중량을 줄이고 그립 너비를 조절해 보세요. 손목이 꺾이지 않게 하고, "
    "통증이 계속되면 운동을 쉬고 전문의와 상담하세요.",
)
_PARIS = (
    "What is the capital of France?",
    "The capital of France is Paris, which lies on the river Seine and has about two million inhabitants.",
)
# The resemblances of these pairs, counted exactly, are 0.85 to 1 and 0.2 to 0.75: the limit lies between.
NEAR = [
    pytest.param(_SQUAT, ("스쿼트 자세를 알려줘", _SQUAT[1]), id="a particle"),
    pytest.param(_SQUAT, (_SQUAT[0] + "!", _SQUAT[1] + "!"), id="signs"),
    pytest.param(_SQUAT, (_SQUAT[0], _SQUAT[1].replace(" ", "")), id="spacing"),
    pytest.param(_ELBOW, (_ELBOW[0], _ELBOW[1].replace("상담하세요", "상담하십시오")), id="an ending"),
    pytest.param(_ELBOW, (_ELBOW[0], _ELBOW[1].replace("먼저 ", "")), id="a word left out"),
    pytest.param(_PARIS, (_PARIS[0].lower(), _PARIS[1].upper()), id="case"),
    pytest.param(_PARIS, (_PARIS[0], _PARIS[1].replace("Seine and", "Seine, and")), id="a comma"),
]
DIFFERENT = [
    pytest.param(
        _SQUAT,
        (
            "데드리프트 자세 알려줘",
            "발을 골반 너비로 벌리고 바를 정강이에 가깝게 둔 뒤, 엉덩이를 뒤로 빼면서 바를 잡으세요. "
            "등을 곧게 펴고 다리 힘으로 일어납니다.",
        ),
        id="a like exercise",
    ),
    pytest.param(_SQUAT, (_SQUAT[0], "무릎이 발끝 방향을 따라가게 하고 허리는 곧게 유지합니다."), id="half an answer"),
    pytest.param(
        ("스쿼트는 일주일에 몇 번 해야 하나요?", "초보자라면 일주일에 두세 번이 적당합니다."),
        ("스쿼트는 일주일에 몇 번 하는 게 좋을까요?", "주에 두세 번을 권합니다. 회복할 시간을 주세요."),
        id="the same in other words",
    ),
    pytest.param(
        _PARIS,
        (
            "What is the capital of Germany?",
            "The capital of Germany is Berlin, which lies on the river Spree and has about four million inhabitants.",
        ),
        id="another fact",
    ),
]
_Pair = tuple[str, str]


def _row(pair: _Pair) -> list[tuple[int, str]]:
    return [(role, normal_form(text)) for role, text in enumerate(pair, 1)]


def _pairs(rows: list[list[tuple[int, str]]], guards: list[int] | None = None) -> list[list[int]]:
    found = near_duplicates.pairs(minhash.signatures(rows), np.array(guards or [0] * len(rows), np.uint64))
    pairs: list[list[int]] = found.tolist()
    return pairs


@pytest.mark.parametrize(("one", "other"), NEAR)
def test_rows_that_say_nearly_the_same_are_found(one: _Pair, other: _Pair) -> None:
    assert _pairs([_row(one), _row(other)]) == [[0, 1]]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_rows_that_say_something_else_are_not_found(one: _Pair, other: _Pair) -> None:
    assert _pairs([_row(one), _row(other)]) == []


def test_rows_with_other_guards_are_not_alike() -> None:
    assert _pairs([_row(_SQUAT), _row(_SQUAT)], [1, 2]) == []


def test_chosen_and_rejected_answers_that_change_places_are_not_alike() -> None:
    one, other = "가" + _SQUAT[1], "나" + _ELBOW[1]
    assert _pairs([[(1, "a"), (2, one), (3, other)], [(1, "a"), (2, other), (3, one)]]) == []


def test_rows_without_text_are_alike() -> None:
    assert _pairs([[(1, "")], [(1, "")]]) == [[0, 1]]


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    rows = [_row(_SQUAT), [(1, "가")], _row(_PARIS), [], _row(_ELBOW)]
    together = minhash.signatures(rows)
    assert all((minhash.signatures([row])[0] == together[i]).all() for i, row in enumerate(rows))


def test_blocks_do_not_change_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [_row(_SQUAT), _row(_ELBOW), _row(_PARIS)] * 3
    whole = minhash.signatures(rows)
    monkeypatch.setattr(minhash, "_BLOCK_CODEPOINTS", 100)
    assert (minhash.signatures(rows) == whole).all()


@given(st.integers(0, 400))
def test_signatures_tell_the_resemblance(shared: int) -> None:
    rng = np.random.default_rng(shared)
    letters = rng.permutation(11172)[:1200] + 0xAC00
    one = "".join(map(chr, letters[:400]))
    other = "".join(map(chr, [*letters[:shared], *letters[400 : 800 - shared]]))
    a, b = minhash.signatures([[(1, one)], [(1, other)]])
    shingles = [{text[i : i + 3] for i in range(len(text))} for text in (one, other)]
    resemblance = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
    # Five standard errors, the largest of which is at a half.
    assert abs((a == b).mean() - resemblance) < 5 * (0.25 / minhash.VALUES) ** 0.5


def test_many_alike_rows_are_all_tied_to_the_first() -> None:
    pairs = near_duplicates.pairs(minhash.signatures([_row(_SQUAT)] * 500), np.zeros(500, np.uint64))
    assert near_duplicates.later_ones(pairs, 500).sum() == 499


def test_two_kinds_of_rows_in_one_bucket_are_kept_apart() -> None:
    signatures = np.zeros((4, minhash.VALUES), np.uint16)
    signatures[2:, 8:] = 1  # the same first band, and nothing else
    assert near_duplicates.pairs(signatures, np.zeros(4, np.uint64)).tolist() == [[0, 1], [2, 3]]


def _array(*pairs: tuple[int, int]) -> Any:
    return np.array(pairs, np.int64).reshape(-1, 2)


def test_a_row_stays_whose_likes_are_all_left_out() -> None:
    """Else a chain of small changes would shrink to its first row."""
    assert near_duplicates.later_ones(_array((0, 1), (1, 2)), 3).tolist() == [False, True, False]


def test_groups_follow_chains() -> None:
    assert near_duplicates.groups(_array((1, 3), (0, 3), (4, 5)), 6).tolist() == [0, 0, 2, 0, 4, 4]
