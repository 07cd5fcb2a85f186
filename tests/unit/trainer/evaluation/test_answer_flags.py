"""What is plainly wrong with an answer."""

import pytest

from finetune_api.report import AnswerFlags, AnswerReport
from finetune_trainer.evaluation.answer_flags import copied, flags, loops, of_file, wrong_language

pytest.importorskip("numpy")

KOREAN = (
    "바가 손바닥 가운데가 아니라 손목 바로 위의 두툼한 곳에 오도록 잡아 보세요. 손목이 뒤로 꺾이지 않게 주먹을 "
    "천장으로 세우고, 통증이 사라질 때까지 무게를 20% 줄이세요. 일주일 넘게 아프면 병원에서 확인을 받는 것이 좋습니다."
)
ENGLISH = (
    "Let the bar sit over the heel of your palm, right above the wrist, and keep your knuckles pointing at the "
    "ceiling. Drop the load by a fifth until the pain is gone, and see a doctor if it stays for more than a week."
)


def of(
    answer: str, *, stopped: bool = True, question: str = "손목이 아파요.", training: tuple[str, ...] = ()
) -> list[str]:
    return list(flags(answer, stopped=stopped, question=question, reference=None, training_answers=training))


def test_a_good_answer_has_no_flag() -> None:
    assert of(KOREAN, training=("스쿼트는 천천히 내려가세요.",)) == []


@pytest.mark.parametrize("answer", ["", "  \n"])
def test_nothing_but_space_is_empty(answer: str) -> None:
    assert of(answer, stopped=False) == ["Empty"]


def test_an_answer_that_hit_the_limit_did_not_stop() -> None:
    assert of(KOREAN, stopped=False) == ["NoStop"]


@pytest.mark.parametrize(
    "text",
    [
        "좋아요. " * 12,
        "ㅋ" * 60,
        KOREAN + " 다시 한 번 해 보세요." * 14,
        ENGLISH + " " + "I am a coach. " * 20 + ENGLISH,
        (ENGLISH + " ") * 4,
    ],
)
def test_repeating_oneself_is_a_loop(text: str) -> None:
    assert loops(text.strip())


@pytest.mark.parametrize(
    "text",
    [
        KOREAN,
        ENGLISH,
        "네, 네.",
        "1. 가슴 밀기 10회 2세트\n2. 등 당기기 10회 2세트\n3. 스쿼트 10회 2세트\n4. 플랭크 30초 2세트\n5. 걷기 20분",
        "No. " * 3,
    ],
)
def test_lists_and_prose_are_no_loops(text: str) -> None:
    assert not loops(text)


def test_a_training_answer_word_for_word_is_copied() -> None:
    assert of(KOREAN, training=("다른 답입니다.", KOREAN.replace(". ", ".\n"))) == ["Copied"]


def test_a_copy_with_a_new_beginning_is_copied() -> None:
    assert copied("안녕하세요! " + KOREAN, [KOREAN + " 오늘도 힘내세요!"])


def test_a_shared_closing_phrase_is_not_copied() -> None:
    closing = " 오늘도 한 세트 더, 할 수 있어요! 내일도 같은 시간에 만나서 같이 운동해요, 기다릴게요!"

    assert not copied(KOREAN + closing, [ENGLISH + closing])


def test_a_short_answer_is_not_copied() -> None:
    assert not copied("네, 그렇게 하세요.", ["네, 그렇게 하세요."])


def test_pieces_of_many_answers_are_not_copied() -> None:
    half = len(KOREAN) // 2

    assert not copied(KOREAN, [KOREAN[:half], KOREAN[half:]])


def test_english_for_a_korean_question_is_the_wrong_language() -> None:
    assert of(ENGLISH) == ["WrongLanguage"]


def test_the_reference_says_which_language_is_wanted() -> None:
    found = flags(ENGLISH, stopped=True, question="영어로 옮겨 줘.", reference="Hold the bar.", training_answers=())

    assert found == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("바벨(barbell)은 RPE 8로 시작하세요. bench press 후 stretching을 합니다.", "어떻게 하나요?"),
        ("3 x 10", "몇 번 하나요?"),
        (ENGLISH, "1 + 1 = ?"),
        (ENGLISH, "sets와 reps가 뭔지 알려 줘요"),
    ],
)
def test_mixed_or_too_little_text_is_not_the_wrong_language(text: str, expected: str) -> None:
    assert not wrong_language(text, expected)


@pytest.mark.parametrize("answer", ["환불할 수 있나요?", "환불할 수 있나요", " 환불할  수 있나요? 네"])
def test_an_answer_that_is_hardly_more_than_the_question_is_flagged(answer: str) -> None:
    found = flags(answer, stopped=True, question="환불할 수 있나요?", reference=None, training_answers=())
    assert found == ["RepeatsQuestion"]


def test_an_answer_that_should_repeat_the_question_is_not_flagged() -> None:
    assert flags("hello", stopped=True, question="Hello!", reference="hello", training_answers=()) == []


def test_a_files_answer_has_the_flags_of_the_same_text() -> None:
    report = AnswerReport(prompt="q", base="", tuned="cut off", flags=AnswerFlags(base=[], tuned=["NoStop"]))
    assert of_file("cut off", None, report) == ["NoStop"]


def test_a_files_own_answer_has_flags_of_its_own() -> None:
    report = AnswerReport(prompt="q", base="", tuned="cut off", flags=AnswerFlags(base=[], tuned=["NoStop"]))
    assert of_file("", True, report) == ["Empty"]
    assert of_file("an answer", True, report) == []
    assert of_file("an answer that", False, report) == ["NoStop"]
