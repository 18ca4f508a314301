"""Quick start, tutorials and "coming from" run block by block, and print what they show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.run_page import FILE, blocks

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
QUICK = ("student",)
"""Pages that take seconds; the others convert models."""
PAGES = [
    DOCS / "quickstart.md",
    *sorted((DOCS / "tutorials").glob("*.md")),
    *sorted((DOCS / "coming_from").glob("*.md")),
]


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=() if page.stem in QUICK else pytest.mark.slow) for page in PAGES],
    ids=lambda page: page.stem,
)
def test_a_page_runs_and_prints_what_it_shows(page: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    command = [sys.executable, str(ROOT / "tests" / "docs" / "run_page.py"), str(page)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("shown", ["1.04", "..."])
def test_what_a_page_shows_is_compared(shown: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```python\nprint(1.05)\n```\n\n```text\n{shown}\n```\n", encoding="utf-8")
    command = [sys.executable, str(ROOT / "tests" / "docs" / "run_page.py"), str(page)]
    assert subprocess.run(command, capture_output=True, cwd=tmp_path, check=False).returncode == (shown != "...")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_of_a_page_are_blocks_of_their_kind(page: Path) -> None:
    for language, text in blocks(page):
        if kept := FILE.match(text):
            assert Path(kept[1]).suffix == {"python": ".py"}.get(language, f".{language}")
