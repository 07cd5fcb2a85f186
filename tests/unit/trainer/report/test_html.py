"""The page as text; tests/browser has it in a browser."""

import html
import re

import pytest

from finetune_api.report import Report
from finetune_trainer.report.html import render
from tests.support.sample_report import ATTACK, hostile_report, sample_report

_SECTIONS = {
    "training": ["learning"],
    "export": ["files", "parity"],
    "data": ["data"],
    "evaluation": ["warnings", "answers"],
    "timings": ["time"],
}


def _sections(page: str) -> list[str]:
    return re.findall(r'<section id="([a-z]+)"', page)


def test_a_whole_report_has_every_section() -> None:
    wanted = ["warnings", "answers", "learning", "files", "parity", "data", "settings", "time"]
    assert _sections(render(sample_report())) == wanted


@pytest.mark.parametrize("part", _SECTIONS)
def test_a_missing_part_leaves_out_its_sections_alone(part: str) -> None:
    without = sample_report().model_copy(update={part: {} if part == "timings" else None})
    missing = set(_sections(render(sample_report()))) - set(_sections(render(without)))
    assert missing == set(_SECTIONS[part])


def test_an_empty_report_has_no_section() -> None:
    assert _sections(render(Report())) == []


def test_parts_of_the_data_that_are_missing_leave_no_heading() -> None:
    data = sample_report().data
    assert data is not None
    bare = data.model_copy(
        update={"lengths": None, "languages": None, "sample": None, "split": None, "sources": [], "checks": []}
    )
    assert re.findall("<h3>(.*?)</h3>", render(Report(data=bare))) == ["Checks"]


def test_the_policy_allows_inline_styles_and_nothing_else_of_the_net() -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', render(Report()))
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert "http" not in policy
    assert "script" not in policy


def test_every_text_is_escaped() -> None:
    page = render(hostile_report())
    assert ATTACK not in page
    assert html.escape(ATTACK, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
    assert page.count("<script") == 0
    assert page.count("</style>") == 1


def test_templates_in_answers_are_not_run() -> None:
    assert "{{ 7*7 }}" in render(hostile_report())


def test_line_breaks_of_answers_and_rows_are_kept() -> None:
    page = render(sample_report())
    assert "환불해 드립니다. 😊\n\n1. 마이페이지 &gt; 주문 내역" in page
    assert "&lt;|im_start|&gt;system\n친절한 상담원입니다.&lt;|im_end|&gt;\n" in page


def test_what_is_learned_of_the_sample_row_is_marked() -> None:
    (marked,) = re.findall('<mark><span class="hidden">Learned: </span>(.*?)<span', render(sample_report()))
    assert marked == "평일 오전 9시부터 오후 6시까지입니다. 🕘&lt;|im_end|&gt;"


def test_a_missed_limit_is_said_in_words() -> None:
    report = sample_report()
    assert "(missed)" not in render(report)
    assert report.export is not None
    limits = {name: limit.model_copy(update={"kl": 0.0001}) for name, limit in report.export.limits.items()}
    export = report.export.model_copy(update={"limits": limits})
    assert render(report.model_copy(update={"export": export})).count("(missed)") == 2


def test_a_loss_that_is_no_number_is_not_drawn() -> None:
    report = Report.model_validate(
        {"training": {"steps": 1, "keptStep": 1, "loss": [{"step": 1, "value": float("nan")}]}}
    )
    page = render(report)
    assert "No loss was recorded that can be drawn." in page
    assert "<figure>" not in page


def test_the_same_report_gives_the_same_page() -> None:
    assert render(sample_report()) == render(sample_report())
