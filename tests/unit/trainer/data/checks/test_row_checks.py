"""What is looked for in the text of single rows."""

import time

import numpy as np
import pytest

from finetune_trainer.data.checks import echoes, endings, languages, lengths, personal_data, refusals
from finetune_trainer.data.checks.normal_form import normal_form, numbers, without_end


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("주민번호는 900101-1234567 입니다", "resident number"),
        ("외국인등록번호 850315-5123456", "resident number"),
        ("9001011234568", "resident number"),
        ("연락처: 010-2345-6789", "phone"),
        ("01023456789로 전화", "phone"),
        ("+82 10 2345 6789", "phone"),
        ("02-345-6789", "phone"),
        ("카드 4111-1111-1111-1111", "card"),
        ("5555555555554444", "card"),
        ("3782 822463 10005", "card"),
        ("kim.cheolsu+gym@naver.com 으로", "e-mail"),
    ],
)
def test_personal_data_is_found(text: str, kind: str) -> None:
    assert personal_data.kinds(text) == {kind}


@pytest.mark.parametrize(
    "text",
    [
        "2024년 1월 1일",
        "901301-1234567",  # no month 13
        "9001011234567",  # without a hyphen the last digit has to be right
        "990101-3234567",  # born in 2099
        "010-1234-5678",
        "010-0000-0000",
        "1588-1234",
        "버전 1.2.3, 주문 20240101-0012",
        "4111-1111-1111-1112",  # Luhn
        "0000 0000 0000 0000",
        "you@example.com",
        "@mention 그리고 a@b",
        "3.141592653589793",
        "매출: 2023 2024 2025 2026",  # Luhn is right
    ],
)
def test_other_numbers_are_no_personal_data(text: str) -> None:
    assert personal_data.kinds(text) == set()


def test_very_long_words_are_searched_in_one_go() -> None:
    started = time.process_time()
    assert personal_data.kinds("a" * 200_000 + " kim@naver.com " + "1" * 200_000) == {"e-mail"}
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI language model, I do not have opinions.",
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I cannot assist with that request.",
        "I cannot provide medical advice.",
        "I am an AI and cannot feel pain.",
        "죄송하지만 그 요청은 도와드릴 수 없습니다.",
        "죄송합니다. 저는 AI 언어 모델로서 의견이 없습니다.",
        "인공지능 모델이기 때문에 답변할 수 없습니다.",
        "미안하지만 답변하기 어렵습니다.",
        "저는 AI 챗봇이라 진단은 할 수 없습니다.",
        "저는 AI 어시스턴트입니다. 의료 조언은 드릴 수 없어요.",
    ],
)
def test_refusals_are_found(answer: str) -> None:
    assert refusals.is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "Sorry for the delay. Your order ships today.",
        "I can't recommend this book enough!",
        "An AI model learns from data.",
        "죄송합니다. 배송이 늦어졌습니다. 내일 도착합니다.",
        "통증이 있으면 운동을 할 수 없습니다.",
        "AI 모델은 데이터로 학습합니다.",
        "안녕하세요, 한강짐의 AI 어시스턴트입니다. 어떤 운동을 하고 싶으세요?",
        "저는 AI 챗봇이라서 언제든 물어보셔도 됩니다.",
        "무릎이 아프면 쉬세요. " * 20 + "As an AI language model",
    ],
)
def test_ordinary_answers_are_no_refusals(answer: str) -> None:
    assert not refusals.is_refusal(answer)


_LONG = "무릎이 발끝 방향을 따라가게 하고 허리는 곧게 유지합니다. " * 5


@pytest.mark.parametrize(
    "end", ["그리고 엉덩이를 뒤로 빼면서", "다음으로 중요한 것은 호흡,", "and then you have to lower the"]
)
def test_answers_that_stop_in_a_sentence_are_unfinished(end: str) -> None:
    assert endings.is_unfinished(_LONG + end)


@pytest.mark.parametrize(
    "end",
    [
        "천천히 앉으세요.",
        "천천히 앉으세요",
        "허리는 곧게 유지할 것",
        "화이팅! 💪",
        "(두 번)",
        "\n- 스쿼트 열 번씩",
        "\n```python\nprint(x)\n```",
        "\n참고: https://example.com/squat",
        "\n| 운동 | 횟수",
        "\nSquat",
        "총 20",
    ],
)
def test_other_ends_are_no_cuts(end: str) -> None:
    assert not endings.is_unfinished(_LONG + end)


def test_short_answers_may_end_anyhow() -> None:
    assert not endings.is_unfinished("엉덩이를 뒤로 빼면서")


@pytest.mark.parametrize(
    ("unfinished", "long_answers", "expected"),
    [
        ([], 100, False),
        ([300, 310], 100, True),  # the exception
        (list(range(300, 380)), 100, False),  # how the dataset is written
        ([400] * 5 + list(range(300, 375)), 100, True),  # cut at one length
    ],
)
def test_unfinished_answers_are_reported_where_they_look_cut(
    unfinished: list[int], long_answers: int, expected: bool
) -> None:
    assert endings.suspicious(unfinished, long_answers) is expected


def test_an_echo_is_the_whole_prompt() -> None:
    assert echoes.is_echo("스쿼트가뭐야", ["", "스쿼트가뭐야"])
    assert not echoes.is_echo("스쿼트가뭐야하면", ["스쿼트가뭐야"])
    assert not echoes.is_echo("", [""])


@pytest.mark.parametrize("other", ["  무엇인가요", "무엇 인가요?", "무엇인가요 ?!", "무엇인가요..."])
def test_spelling_does_not_make_another_question(other: str) -> None:
    assert without_end(normal_form(other)) == without_end(normal_form("무엇인가요"))


def test_width_and_case_do_not_count() -> None:
    assert normal_form("ＧＰＴ Ｎ") == normal_form("gpt n")


def test_numbers_are_reported_in_their_order() -> None:
    assert numbers(normal_form("체중 70kg, ３세트")) == "70,3"


def test_letters_are_counted_by_script() -> None:
    counts = languages.count(np.array([ord(c) for c in "가ㄱ나 abc1!? 日ひ 💪"], np.uint32))
    assert counts.tolist() == [3, 3, 2]


def test_shares_are_of_letters() -> None:
    mix = languages.mix([3, 1, 0])
    assert mix is not None
    assert (mix.hangul, mix.latin, mix.other) == (0.75, 0.25, 0.0)
    assert languages.mix([0, 0, 0]) is None


def test_lengths_are_those_of_rows() -> None:
    found = lengths.summary(np.array([10, 100, 70, 300]), "characters")
    assert found is not None
    assert (found.minimum, found.median, found.p95, found.maximum) == (10, 70, 300, 300)
    assert [(b.up_to, b.count) for b in found.histogram] == [(64, 1), (128, 2), (256, 0), (512, 1)]


def test_no_rows_have_no_lengths() -> None:
    assert lengths.summary(np.array([]), "tokens") is None
