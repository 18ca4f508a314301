"""What the documentation shows runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))
LONG = ("01", "06", "07", "08")
"""Numbers of examples that take more than five seconds each."""
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "reproductions/*/*.md")
    for page in ROOT.glob(pattern)
    if not page.name.startswith(".")
)


def run(*args: str) -> str:
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "example",
    [pytest.param(path, marks=pytest.mark.slow if path.stem[:2] in LONG else ()) for path in EXAMPLES],
    ids=lambda path: path.stem,
)
def test_example_runs(example: Path) -> None:
    if "transformers" in example.read_text(encoding="utf-8"):
        pytest.importorskip("transformers")
    assert run(str(example)).strip()


@pytest.mark.slow
def test_example_study_runs(tmp_path: Path) -> None:
    command = ["-m", "ohmformer.cli", "accuracy", "examples/03_adc_bits.toml", "--out", str(tmp_path), "--workers", "1"]
    small = ["--set", "trials.chips=1", "--set", "task.limit=10", "--set", "hardware.attention.array.adc.bits=[2, 8]"]
    assert "software" in run(*command, *small)
    assert (tmp_path / "figure.png").exists()


def test_example_study_of_cost_runs() -> None:
    assert "lifetime" in run("-m", "ohmformer.cli", "cost", "examples/04_cost.toml")


@pytest.mark.parametrize("example", ["examples/09_serving.py", "examples/10_several_chips.py"])
def test_the_page_on_cost_shows_what_its_examples_print(example: str) -> None:
    page = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    (shown,) = re.findall(rf"^\$ python {example}\n(.*?)\n```$", page, re.DOTALL | re.MULTILINE)
    assert run(example).strip() == shown


def test_readme_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.strip().splitlines()) <= 20
    script = tmp_path / "readme.py"
    script.write_text(code)
    output = run(str(script))
    assert "attention.value x8" in output
    assert "95 % interval" in output


def test_the_page_on_architecture_names_every_folder_and_root_module() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "src" / "ohmformer"
    folders = {path.parent.name for path in package.glob("*/__init__.py")} | {"library"}
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page, re.MULTILINE)
    assert folders | modules <= {name for cell in cells for name in re.findall(r"\w+", cell)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_file_of_a_page_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", text):
        assert (page.parent / link).exists(), link
    named = re.findall(r"`((?:docs|examples|tests|training|benchmarks|reproductions|src)/[\w./-]+)`", text)
    room = "nn|array|capture|hardware|mitigation|device|dataflow|workload|cost|study"
    rooms = re.findall(rf"`((?:{room})/[\w/]+\.py)`", text)
    missing = [name for name in [*named, *(f"src/ohmformer/{name}" for name in rooms)] if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_are_well_formed(page: Path) -> None:
    """Every row has as many cells as its header; `|` inside code spans is escaped."""
    header: int | None = None
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fenced ^= line.lstrip().startswith("```")
        if fenced or not line.startswith("|"):
            header = None
            continue
        cells = len(re.findall(r"(?<!\\)\|", line)) - 1
        header = cells if header is None else header
        assert cells == header, f"line {number}"


@pytest.mark.slow
def test_example_of_limits_runs(tmp_path: Path) -> None:
    command = ["-m", "ohmformer.cli", "device", "require", "examples/12_limits_of_cells.toml", "--out", str(tmp_path)]
    small = ["--set", "trials.chips=2", "--set", "task.limit=20", "--set", "simulation.level=noise", "--step", "1"]
    options = ["--loss", "40 %", "--quantity", "write_noise", "--workers", "1"]
    assert "write noise" in run(*command, *small, *options)
    assert (tmp_path / "requirements.csv").read_text().startswith("table,first,")
