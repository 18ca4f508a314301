"""What the pages refer to exists: links, headings, files, public names, and the names in inline code."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

import ohmformer as of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = ("src", "examples", "reproductions", "benchmarks", "training")
WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]{2,}")
BLOCK = re.compile(r"```.*?```", re.DOTALL)
ELSEWHERE = {"activate", "venue"}
"""Words of commands and placeholders that belong to other programs."""
NOT_HERE = ("ohmformer-runs/", "my_lab/", "cell.toml/", "machine.toml/")
"""Folders and files that exist only after a run, or in the package of an example."""


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def names_others(page: Path) -> bool:
    """Whether a page names modules and options of other programs."""
    return page.name == "models.md" or page.parent.name == "coming_from"


@cache
def files() -> set[str]:
    """Paths of all files and folders of the repository, relative to its root."""
    kept = [ROOT / name for name in (*SOURCES, "docs", "tests")]
    found = {path for folder in kept for path in (folder, *folder.rglob("*"))} | set(ROOT.glob("*"))
    return {path.relative_to(ROOT).as_posix() for path in found}


@cache
def known_words() -> set[str]:
    """Every word of the code, of the files that ship, and of the paths of the repository."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "pyproject.toml", ROOT / "Makefile")]
    for folder in (*SOURCES, "tests/fuzz"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".toml", ".bib"}:
                texts.append(path.read_text(encoding="utf-8"))
    return set(WORD.findall("\n".join([*texts, *files()])))


def inline_code(page: Path) -> list[str]:
    """The inline code of a page, without its blocks of code."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", text)


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not re.match(r"[a-z]+:", link) and not (target.exists() and (not anchor or anchor in headings(target))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_that_a_page_names_exist(page: Path) -> None:
    """A path may be relative to the root of the repository or to any folder in it, such as the package."""
    named = [
        code.rstrip("/") for code in inline_code(page) if re.fullmatch(r"[\w.-]+(/[\w.-]+)*(/|\.(py|toml|md))", code)
    ]
    missing = [name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in files())]
    assert [name for name in missing if not f"{name}/".startswith(NOT_HERE)] == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_public_names_of_a_page_are_public(page: Path) -> None:
    named = set(re.findall(r"\bof\.([A-Za-z_]\w*)", page.read_text(encoding="utf-8"))) - {"NAME", "FOLDER"}
    assert sorted(named - set(of._HOME) - set(of._FOLDERS)) == []


@pytest.mark.parametrize("page", [page for page in PAGES if not names_others(page)], ids=ids)
def test_names_in_inline_code_exist_in_the_code(page: Path) -> None:
    """A key, function or option that was renamed must not live on in a page."""
    unknown = {word for code in inline_code(page) for word in WORD.findall(code)} - known_words() - ELSEWHERE
    unknown -= {word for block in BLOCK.findall(page.read_text(encoding="utf-8")) for word in WORD.findall(block)}
    beginnings = {word for word in unknown if word.endswith("_") and any(w.startswith(word) for w in known_words())}
    assert sorted(unknown - beginnings) == []
