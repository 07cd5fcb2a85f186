"""The report's page in Chromium."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from finetune_api.report import Report
from finetune_trainer.report.html import render
from finetune_trainer.report.texts import Language
from tests.support.sample_report import sample_report

_BROWSERS = ("chromium", "google-chrome")
# Waited for in vain only by a test that fails.
PATIENCE_MILLISECONDS = 120_000
WIDTHS = (360, 1280)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@dataclass
class Opened:
    """A page, and what it did while it was loaded."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


Open = Callable[..., Opened]
Windows = dict[tuple[int, str], BrowserContext]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.fail("there is no Chromium or Google Chrome: run hack/prerequisites, or install one")
    # Chromium's own sandbox does not start as root; the page is made by this very program.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=arguments, timeout=PATIENCE_MILLISECONDS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def windows(browser: Browser) -> Windows:
    """Return a window of each width and colour scheme: they take a second each to open."""
    opened = {
        (width, scheme): browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        for width, scheme in itertools.product(WIDTHS, SCHEMES)
    }
    for window in opened.values():
        window.set_default_timeout(PATIENCE_MILLISECONDS)
    return opened


@pytest.fixture(scope="session")
def sample(windows: Windows, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Return the sample report's page, for tests that only look."""
    path = tmp_path_factory.mktemp("sample") / "report.html"
    path.write_text(render(sample_report()), encoding="utf-8")
    page = windows[WIDTHS[-1], SCHEMES[0]].new_page()
    page.goto(path.as_uri())
    return page


@pytest.fixture
def open_report(windows: Windows, tmp_path: Path) -> Iterator[Open]:
    """Return a function that renders a report, the sample one by default, and opens it from a file."""
    pages = []

    def opened(
        report: Report | None = None, *, width: int = 1280, scheme: str = "light", language: Language = "en"
    ) -> Opened:
        path = tmp_path / "report.html"
        path.write_text(render(report or sample_report(), language), encoding="utf-8")
        found = Opened(windows[width, scheme].new_page())
        pages.append(found.page)
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.on("console", lambda message: found.complaints.append(message.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.on("dialog", lambda dialog: found.complaints.append(dialog.message))
        found.page.goto(path.as_uri())
        return found

    yield opened
    for page in pages:
        page.close()
