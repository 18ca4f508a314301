"""The page as HTML: complete, self-contained, and safe whatever files say."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser

import pytest

from ohmformer.report.page.html_page import html_page
from ohmformer.report.page.study_page import study_page
from tests.report.page.documents import HOSTILE, both, cost, costs, record, wide
from tests.report.results import DEMO


class Seen(HTMLParser):
    """Elements of a page, with their attributes, in order; and the text of its data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.data.append(data)

    def of(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def seen(text: str) -> Seen:
    """The elements of a page without its library, which is not ours."""
    return Seen(re.sub(r"<script>/\*\*\n\* plotly\.js.*?</script>", "<script></script>", text, flags=re.DOTALL))


def figures(text: str) -> dict[str, object]:
    """The charts of a page."""
    (found,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', text, flags=re.DOTALL)
    return json.loads(found)


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = seen(html_page(study_page(both())))
    places = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert places
    assert all(value and value.startswith(("#", "data:")) for value in places), places
    assert not page.of("iframe", "object", "embed", "base", "form")


def test_scripts_are_the_three_of_the_page_and_named_by_hash() -> None:
    page = seen(html_page(study_page(both())))
    assert len(page.of("script")) == 3
    (policy,) = [str(meta["content"]) for meta in page.of("meta") if meta.get("http-equiv")]
    assert policy.startswith("default-src 'none';")
    script_src = policy.split("script-src ")[1]
    assert script_src.count("'sha256-") == 2
    assert "unsafe" not in script_src


def test_names_of_files_are_text_wherever_they_stand() -> None:
    text = html_page(study_page(both(HOSTILE)))
    page, plain = seen(text), seen(html_page(study_page(both())))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements], "markup got in"
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "{{ 7 * 7 }}" in "".join(page.data), "a name was read as a template"
    for harmful in "\x1b\x07\u202e\ud800":
        assert harmful not in text
    charts = json.dumps(figures(text), ensure_ascii=False)
    assert "&lt;/script&gt;" in charts, "plotly reads markup in names, so that it is escaped for it too"
    assert "<" not in charts


def test_ids_differ_and_what_refers_to_them_finds_them() -> None:
    page = seen(html_page(study_page(both())))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert set((attributes.get(name) or "").split()) <= set(map(str, ids))
    links = [str(link["href"])[1:] for link in page.of("a")]
    assert set(links) <= set(map(str, ids))


def test_headings_are_in_order_and_landmarks_are_there() -> None:
    page = seen(html_page(study_page(both())))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(len(page.of(tag)) == 1 for tag in ("main", "nav", "header", "footer", "title"))
    assert page.of("html")[0]["lang"] == "en"


def test_every_table_has_a_caption_and_scopes_and_every_chart_a_table_and_words() -> None:
    found = study_page(both())
    page = seen(html_page(found))
    assert len(page.of("caption")) == len(page.of("table"))
    assert all(cell.get("scope") in ("row", "col") for cell in page.of("th"))
    charts = [attributes for attributes in page.of("div") if attributes.get("role") == "img"]
    assert [chart["data-chart"] for chart in charts] == list(figures(html_page(found)))
    assert len(charts) == len(found.charts) > 6
    assert all(chart.table.rows and chart.summary for chart in found.charts)


def test_a_page_without_charts_has_no_scripts() -> None:
    served = costs(cost()).model_copy(update={"points": costs(cost()).points[:1]})
    assert seen(html_page(study_page(served))).of("script")
    page = study_page(served)
    bare = type(page)(page.title, page.question, page.answer)
    assert not seen(html_page(bare)).of("script")


@pytest.mark.slow
def test_a_thousand_points_are_all_there() -> None:
    page = study_page(wide(1000))
    assert len(seen(html_page(page)).of("tr")) > 3000
    assert all(len(chart.table.rows) == 1000 for chart in page.charts if chart.name.startswith("front"))


@pytest.mark.parametrize("document", [DEMO, costs(cost()), costs(cost(), cost(2e-3, 5e-5)), both()])
def test_pages_of_all_kinds_are_made(document: object) -> None:
    text = html_page(study_page(document))  # type: ignore[arg-type]
    assert text.startswith("<!doctype html>\n")
    assert seen(text).of("main")


def test_the_record_is_on_the_page() -> None:
    text = html_page(study_page(costs(cost(), record=record("itrs2011"))))
    for words in ("ohmformer run", "itrs2011", "25 % of the energy and 0 % of the area", "seed", "1 of 1 values"):
        assert words in text, words
