"""The page in a browser: Chromium draws its charts without a complaint, at the widths of a phone and of a desktop.

Left out where there is no Chromium or no Playwright. Where OHMFORMER_REQUIRE_BROWSER is set, as in CI, that fails.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ohmformer.report.page.content import Page
from ohmformer.report.page.html_page import html_page
from ohmformer.report.page.study_page import study_page
from tests.report.page.documents import HOSTILE, both, cost, costs, record

REQUIRED = bool(os.environ.get("OHMFORMER_REQUIRE_BROWSER"))
CHROMIUM = shutil.which("chromium")
SECONDS = 240_000
"""Most milliseconds for a page: machines that test may be busy."""

if not REQUIRED:
    pytest.importorskip("playwright", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed", allow_module_level=True)

pytestmark = pytest.mark.slow

DOCUMENTS = {
    "both": lambda: both(),
    "hostile": lambda: both(HOSTILE),
    "costs": lambda: costs(cost(), cost(2e-3, 5e-5), record=record()),
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A running browser."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "Chromium is not installed"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=SECONDS)
        yield browser
        browser.close()


@pytest.fixture(params=[(390, "light"), (1280, "dark")], ids=["phone, light", "desktop, dark"])
def opened(chromium: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """An empty view of some width and scheme, without a network."""
    width, scheme = request.param
    view = chromium.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
    view.set_default_timeout(SECONDS)
    yield view
    view.close()


def show(view: Any, page: Page, file: Path) -> list[str]:
    """Open a page and wait for its charts; what the browser complained of, and all dialogs."""
    file.write_text(html_page(page), encoding="utf-8")
    said: list[str] = []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    view.on(
        "request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    view.goto(file.as_uri())
    view.wait_for_selector("html[data-drawn]", state="attached")
    return said


@pytest.mark.parametrize("document", DOCUMENTS)
def test_charts_are_drawn_without_complaint_and_nothing_is_wider_than_the_window(
    opened: Any, document: str, tmp_path: Path
) -> None:
    page = study_page(DOCUMENTS[document]())
    assert show(opened, page, tmp_path / "page.html") == []
    drawn = opened.eval_on_selector_all(
        "[data-chart]",
        "places => places.map(p => [p.querySelectorAll('.trace, .point').length, p.querySelector('svg').clientWidth])",
    )
    assert len(drawn) == len(page.charts)
    assert all(marks > 0 and width > 200 for marks, width in drawn), drawn
    rows = opened.eval_on_selector_all("tbody", "bodies => bodies.map(body => body.rows.length)")
    tables = [table for section in page.sections for table in (*section.tables, *section.folded)]
    shown = [chart.table for section in page.sections for chart in section.charts if chart.table not in section.tables]
    assert sorted(rows) == sorted(len(table.rows) for table in [*tables, *shown])
    wide, window = opened.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= window


def test_a_screen_reader_finds_the_answer_the_charts_and_the_tables(opened: Any, tmp_path: Path) -> None:
    page = study_page(both())
    show(opened, page, tmp_path / "page.html")
    tree = opened.locator("body").aria_snapshot()
    for words in ("- banner:", "- main:", "- contentinfo:", '- navigation "Sections"', '- heading "Answer" [level=2]'):
        assert words in tree, words
    for chart in page.charts:
        assert opened.get_by_role("img", name=chart.title, exact=True).count() >= 1, chart.title
    assert opened.get_by_role("table").count() >= 5


def test_the_keyboard_reaches_the_answer_first_and_opens_the_numbers_of_a_chart(opened: Any, tmp_path: Path) -> None:
    show(opened, study_page(both()), tmp_path / "page.html")
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.getAttribute('href')") == "#answer"
    summary = opened.locator("details summary").first
    summary.focus()
    opened.keyboard.press("Enter")
    assert opened.locator("details").first.evaluate("each => each.open")


def test_charts_take_the_colors_of_the_scheme_when_it_changes(chromium: Any, tmp_path: Path) -> None:
    view = chromium.new_page(color_scheme="light")
    view.set_default_timeout(SECONDS)
    show(view, study_page(costs(cost(), record=record())), tmp_path / "page.html")
    color = (
        "getComputedStyle(document.querySelector('[data-chart] .xtick text, [data-chart] .xaxislayer-above text')).fill"
    )
    light = view.evaluate(color)
    view.emulate_media(color_scheme="dark")
    until = time.monotonic() + SECONDS / 1000
    while view.evaluate(color) == light and time.monotonic() < until:
        view.wait_for_timeout(50)
    assert view.evaluate(color) != light
    view.close()
