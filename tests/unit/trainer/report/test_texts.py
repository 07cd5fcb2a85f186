"""The texts of the report in each language."""

from string import Formatter

import pytest

from finetune_api.report import LanguageMix
from finetune_api.spec import ReportLanguage
from finetune_trainer.report import texts
from finetune_trainer.report.html import render
from tests.support.sample_report import sample_report

_KOREAN = texts.LANGUAGES["ko"]


def _placeholders(text: str) -> int:
    return sum(name is not None for _, name, _, _ in Formatter().parse(text))


def test_every_language_has_the_same_keys() -> None:
    assert _KOREAN.keys() == texts.ENGLISH.keys()


def test_every_language_has_the_same_placeholders() -> None:
    # An empty one stands for the report's own sentence.
    written = {key: text for key, text in texts.ENGLISH.items() if text}
    assert {k: _placeholders(_KOREAN[k]) for k in written} == {k: _placeholders(t) for k, t in written.items()}


@pytest.mark.parametrize(
    ("wanted", "hangul", "language"),
    [("Auto", 0.6, "ko"), ("Auto", 0.4, "en"), ("en", 0.9, "en"), ("ko", 0.0, "ko")],
)
def test_the_dataset_decides_unless_the_job_does(wanted: ReportLanguage, hangul: float, language: str) -> None:
    assert texts.choose(wanted, LanguageMix(hangul=hangul, latin=1 - hangul, other=0)) == language


def test_a_dataset_without_letters_gives_an_english_report() -> None:
    assert texts.choose("Auto", None) == "en"


def test_a_korean_page_has_korean_headings() -> None:
    page = render(sample_report(), "ko")
    assert '<html lang="ko">' in page
    assert "학습 전후의 답변" in page
    assert "Answers before and after" not in page


def test_a_finding_keeps_its_own_sentence_below_the_korean_one() -> None:
    report = sample_report()
    assert report.data is not None
    data = report.data.model_copy(update={"warnings": ["ManyEpochs: 20 epochs"]})
    page = render(report.model_copy(update={"data": data}), "ko")
    assert _KOREAN["finding_ManyEpochs"] in page
    assert "ManyEpochs: 20 epochs" in page
