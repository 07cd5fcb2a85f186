"""report.html in a browser: on phones and desktops, light and dark, by keyboard and by screen reader."""

import itertools

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from finetune_api.report import Report
from tests.browser.conftest import SCHEMES, WIDTHS, Open
from tests.support.sample_report import ATTACK, hostile_report, sample_report

_EVERYWHERE = list(itertools.product(WIDTHS, SCHEMES))
_PARTS = ("run", "data", "training", "evaluation", "export", "timings")


def _overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_nothing_but_the_file_is_loaded(open_report: Open) -> None:
    opened = open_report()
    opened.page.wait_for_load_state("networkidle")
    assert [url for url in opened.requests if not url.startswith("data:")] == [opened.page.url]


def test_the_browser_has_nothing_to_complain_of(open_report: Open) -> None:
    assert open_report().complaints == []


@pytest.mark.parametrize(("width", "scheme"), _EVERYWHERE)
def test_axe_finds_nothing(open_report: Open, width: int, scheme: str) -> None:
    page = open_report(width=width, scheme=scheme).page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    found = Axe().run(page)
    assert found.response["violations"] == [], found.generate_report()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_does_not_scroll_sideways(open_report: Open, width: int) -> None:
    page = open_report(width=width).page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert _overflow(page) == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_word_without_spaces_does_not_make_the_page_scroll_sideways(open_report: Open, width: int) -> None:
    report = sample_report()
    assert report.run is not None
    assert report.evaluation is not None
    word = "가나다라abcd" * 60
    answer = report.evaluation.answers[0].model_copy(update={"prompt": word, "tuned": word, "gguf": {"F16": word}})
    report = report.model_copy(
        update={
            "run": report.run.model_copy(update={"name": word, "output_uri": word}),
            "evaluation": report.evaluation.model_copy(
                update={"sentence": word, "warnings": [word], "answers": [answer]}
            ),
        }
    )
    assert _overflow(open_report(report, width=width).page) == 0


@pytest.mark.parametrize(("width", "scheme"), _EVERYWHERE)
def test_the_page_is_light_or_dark_as_the_reader_wants_it(open_report: Open, width: int, scheme: str) -> None:
    page = open_report(width=width, scheme=scheme).page
    # A PNG of one colour would be a tenth of this.
    assert len(page.screenshot()) > 20_000
    red = page.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert (red > 200) == (scheme == "light")


@pytest.mark.parametrize("width", WIDTHS)
def test_one_loss_curve_is_shown(open_report: Open, width: int) -> None:
    curves = open_report(width=width).page.get_by_role("img", name="Loss by training step")
    assert curves.count() == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_labels_in_the_curve_are_large_enough_to_read(open_report: Open, width: int) -> None:
    heights = open_report(width=width).page.evaluate(
        "[...document.querySelectorAll('.chart text')].map(t => t.getBoundingClientRect().height).filter(h => h)"
    )
    assert heights
    assert min(heights) >= 11


def test_headings_go_down_one_level_at_a_time(sample: Page) -> None:
    levels = sample.eval_on_selector_all("h1,h2,h3,h4,h5,h6", "all => all.map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_picture_has_a_name_or_is_left_to_the_text_beside_it(sample: Page) -> None:
    unnamed = sample.eval_on_selector_all(
        "svg,img",
        "all => all.filter(s => s.getAttribute('aria-hidden') !== 'true' && !s.querySelector('title')?.textContent)"
        ".length",
    )
    assert unnamed == 0


def test_every_table_has_a_caption_and_its_headers_a_scope(sample: Page) -> None:
    assert sample.locator("table:not(:has(> caption))").count() == 0
    assert sample.locator("th:not([scope])").count() == 0


def test_every_link_leads_to_a_place_on_the_page(sample: Page) -> None:
    targets = sample.eval_on_selector_all("a", "all => all.map(a => a.getAttribute('href'))")
    assert targets
    assert [t for t in targets if not t.startswith("#") or sample.locator(t).count() != 1] == []


def test_the_first_tab_stop_skips_to_the_content(open_report: Open) -> None:
    page = open_report().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_tab_reaches_everything_that_can_be_used_and_shows_where_it_is(open_report: Open) -> None:
    page = open_report().page
    wanted = page.locator("a, summary, [tabindex='0']").count()
    outlines = []
    for _ in range(wanted):
        page.keyboard.press("Tab")
        outlines.append(page.evaluate("getComputedStyle(document.activeElement).outlineStyle"))
        page.evaluate("document.activeElement.dataset.reached = ''")
    assert page.locator("[data-reached]").count() == wanted
    assert set(outlines) == {"solid"}


def test_the_curves_table_opens_by_keyboard(open_report: Open) -> None:
    page = open_report().page
    table = page.get_by_role("table", name="Loss by step")
    assert table.count() == 0
    page.get_by_text("The curve as a table").press("Enter")
    assert table.get_by_role("row").count() > 10


def test_what_looks_like_html_is_text(open_report: Open) -> None:
    opened = open_report(hostile_report())
    assert "owned" not in opened.page.title().replace(ATTACK, "")
    assert opened.complaints == []
    assert opened.page.locator("script, img, [onerror], [onclick], main b, main i").count() == 0
    assert opened.page.get_by_text(ATTACK, exact=True).count() > 10


def test_the_pages_policy_stops_a_script_that_got_in(open_report: Open) -> None:
    opened = open_report()
    opened.page.evaluate(
        "() => { const script = document.createElement('script');"
        " script.textContent = 'window.ran = 1'; document.body.append(script); }"
    )
    assert opened.page.evaluate("window.ran") is None


def test_an_empty_report_is_a_page(open_report: Open) -> None:
    page = open_report(Report()).page
    assert page.get_by_role("heading", level=1).inner_text() == "Fine-tuning run"
    assert page.locator("main section").count() == 0


@pytest.mark.parametrize("part", _PARTS)
def test_a_report_without_a_part_has_no_gaps(open_report: Open, part: str) -> None:
    report = sample_report().model_copy(update={part: {} if part == "timings" else None})
    page = open_report(report).page
    # Sections and the links to them go together, and none is empty.
    assert page.locator("nav a").count() == page.locator("main > section").count()
    assert "None" not in page.inner_text("body").split()


def test_answers_in_korean_are_marked_as_korean(sample: Page) -> None:
    korean = sample.locator("p.text[lang=ko]")
    assert korean.count() >= 5
    assert all(max(text) >= "가" for text in korean.all_inner_texts())


@pytest.mark.parametrize("width", WIDTHS)
def test_the_korean_page_is_accessible_and_does_not_scroll_sideways(open_report: Open, width: int) -> None:
    page = open_report(width=width, language="ko").page
    found = Axe().run(page)
    assert found.response["violations"] == [], found.generate_report()
    assert _overflow(page) == 0


def test_checksums_are_folded_until_asked_for(open_report: Open) -> None:
    page = open_report(width=WIDTHS[0]).page
    checksum = page.locator(".sum code").first
    assert not checksum.is_visible()
    page.locator(".sum summary").first.click()
    assert checksum.is_visible()
