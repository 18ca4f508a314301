"""The site builds without a warning, needs no network, and works in a browser, on a phone too."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPENED = ("index", "physics", "cost", "validation", "tutorials/student", "reference/hardware")
SIZES = ((1280, 900), (390, 800))
PROBE = """<script>addEventListener("load", () => setTimeout(() => {
const wrong = [...document.images].filter((i) => !i.naturalWidth).map((i) => i.src);
document.title = JSON.stringify({images: wrong, width: document.documentElement.scrollWidth - innerWidth,
search: !!document.querySelector('input[name="q"]'), inner: innerWidth}); }, 300));</script>"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    for package in ("sphinx", "furo", "myst_parser", "sphinx_copybutton"):
        pytest.importorskip(package)
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(ROOT / "docs"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """Scripts, styles, images and fonts are all files of the site."""
    fetched = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^"'>]+""")
    for page in site.rglob("*.html"):
        assert not fetched.findall(page.read_text(encoding="utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\(\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_every_formula_is_markup_and_every_public_name_has_its_entry(site: Path) -> None:
    physics = (site / "physics.html").read_text(encoding="utf-8")
    assert physics.count("<math") > 20
    assert "$" not in re.sub(r"<(script|pre|style)\b.*?</\1>", "", physics, flags=re.DOTALL)
    import ohmformer as of

    entries = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html"))
    assert [name for name in of._HOME if f'id="ohmformer.{name}"' not in entries] == []


def test_search_finds_words_of_the_pages(site: Path) -> None:
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    assert {"tutorials/student", "cost", "reference/hardware"} <= set(index["docnames"])
    assert "crossbar" in index["terms"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("size", SIZES, ids=["desktop", "phone"])
@pytest.mark.parametrize("name", OPENED)
def test_a_page_opens_without_errors_and_fits_the_screen(
    site: Path, name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    assert CHROMIUM is not None
    width, height = size
    probe = site / f"{name}.probe-{width}.html"
    probe.write_text((site / f"{name}.html").read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"))
    frame = probe.with_name(f"{probe.stem}-frame.html")  # a window of Chromium is never narrower than 500 pixels
    frame.write_text(
        f'<iframe id="f" src="{probe.name}" style="width:{width}px;height:{height}px;border:0"></iframe><script>'
        'const f = document.getElementById("f"); f.onload = () => setTimeout(() => '
        "{ document.title = f.contentDocument.title }, 900)</script>"
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--virtual-time-budget=8000", "--dump-dom"]
    done = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, check=False, timeout=240)
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[:1]
    seen = json.loads(title.replace("&amp;", "&"))
    assert seen == {"images": [], "width": seen["width"], "search": True, "inner": width}
    assert seen["width"] <= 0, "the page scrolls sideways"
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
