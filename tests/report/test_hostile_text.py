"""Figures of names that are no plain words, and figures that cannot be written."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.text import Text

from ohmformer.errors import BadInput
from ohmformer.report.figure import draw, save_figure
from ohmformer.study.results.spec import StudyResults
from tests.cases import quick_first
from tests.report.results import DEMO, point, study, swept

WORDS = [
    r"$\frac{$", r"cost $5 and $6", r"noise $\alpha_{$ in K", r"\$", r"a \$ b $", "\x1b[31m\x07\u202e\x9b", "日本 語",
    "<b>&-->", "x" * 5000, "a b " * 500, "a\nb", "%s {0} \\", "𝔘𝔫𝔦 🧪", "\ufffe\uffff\ud800",
]  # fmt: skip


def named(word: str) -> StudyResults:
    extra = [point(0.5, label=word), point(0.6, label=f"{word} again", **{"hardware__base": word})]
    return study(*DEMO.points, *extra, name=word, notes=(word,))


@pytest.mark.parametrize("word", quick_first(WORDS, 5), ids=range(len(WORDS)))
def test_any_text_is_drawn_as_it_is(word: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg, png = save_figure(named(word), tmp_path)
    ElementTree.parse(svg)
    assert png.read_bytes().startswith(b"\x89PNG")


def test_dollar_signs_are_no_mathematics() -> None:
    figure = draw(named("cost $5 and $6"))
    assert figure.get_suptitle().replace(r"\$", "$") == "cost $5 and $6"
    figure.canvas.draw()
    (title,) = [text for text in figure.texts if "cost" in text.get_text() and len(text.get_text()) < 40]
    assert title._preprocess_math(title.get_text()) == ("cost $5 and $6", False)


UNSAFE = "cost $5 and $6\x07"
DRAWN = {
    "the title": study(*DEMO.points, name=UNSAFE),
    "a series": swept({UNSAFE: {0: 0.9, 6: 0.5}, "none": {0: 0.9, 6: 0.4}}),
    "the axis": study(*(point(0.5, **{f"hardware.{UNSAFE}": x}) for x in (0.0, 1.0, 2.0))),
    "a bar": study(*DEMO.points, point(0.5, label=UNSAFE)),
    "a note of the hardware": study(*DEMO.points, notes=(UNSAFE,)),
    "a note of a point": study(*(one.model_copy(update={"notes": (UNSAFE,)}) for one in DEMO.points)),
}
"""Where a text of the user is drawn -> results that have it there."""


@pytest.mark.parametrize("where", DRAWN)
def test_no_text_of_the_user_is_drawn_as_mathematics_or_as_a_control_character(where: str) -> None:
    drawn = [text.get_text() for text in draw(DRAWN[where]).findobj(Text)]
    found = [text.replace("\n", " ") for text in drawn if "5 and" in text.replace("\n", " ")]
    assert found
    assert all(re.search(r"(?i)cost \\\$5 and \\\$6\N{REPLACEMENT CHARACTER}", text) for text in found)


def test_an_escaped_letter_is_not_cut_at_the_end_of_a_line() -> None:
    for length in range(96, 101):
        title = draw(study(*DEMO.points, name=f"{'x' * length}$a$")).get_suptitle()
        assert title.count(r"\$") == title.count("$") == 2, "a line ends in the middle of an escape"


@pytest.mark.parametrize("name", ["figure.svg", "figure.png"])
@pytest.mark.slow
def test_a_folder_in_the_way_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(BadInput, match=rf"{name}: cannot be written \(it is a folder\)"):
        save_figure(DEMO, tmp_path)
    assert not list(tmp_path.glob(".*")), "a draft is left"


@pytest.mark.slow
def test_a_disk_that_is_full_leaves_the_figure_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ohmformer.terminal import files

    save_figure(DEMO, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(BadInput, match=r"figure\.svg: cannot be written \(No space left on device\)"):
        save_figure(named("other"), tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
