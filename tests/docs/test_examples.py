"""What the documentation shows runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))


def run(*args: str) -> str:
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example: Path) -> None:
    if "transformers" in example.read_text(encoding="utf-8"):
        pytest.importorskip("transformers")
    assert run(str(example)).strip()


def test_example_study_runs(tmp_path: Path) -> None:
    command = ["-m", "ohmformer.cli", "accuracy", "examples/03_adc_bits.toml", "--out", str(tmp_path), "--workers", "1"]
    small = ["--set", "trials.chips=1", "--set", "task.limit=10", "--set", "hardware.attention.array.adc.bits=[2, 8]"]
    assert "software" in run(*command, *small)
    assert (tmp_path / "figure.png").exists()


def test_example_study_of_cost_runs() -> None:
    assert "lifetime" in run("-m", "ohmformer.cli", "cost", "examples/04_cost.toml")


def test_readme_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.strip().splitlines()) <= 20
    script = tmp_path / "readme.py"
    script.write_text(code)
    output = run(str(script))
    assert "attention.value x8" in output
    assert "95 % interval" in output


def test_the_page_on_architecture_names_every_folder() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "src/ohmformer").glob("*/__init__.py")}
    named = {
        name for row in re.findall(r"^\| (`[^|]+`) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert folders <= named, folders - named


def test_every_link_of_the_readme_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / link).exists(), link
