"""`ohmformer device fit` from a file to a cell and its figure, in the words of the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ohmformer as of

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "examples" / "measured" / "phase_change.csv"


def run(*args: str, code: int = 0) -> tuple[str, str]:
    command = [sys.executable, "-m", "ohmformer", "device", *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_a_file_becomes_a_cell_and_a_figure(tmp_path: Path) -> None:
    cell, figure = tmp_path / "cell.toml", tmp_path / "fit.svg"
    out, _ = run("fit", str(TABLE), "-o", str(cell), "--figure", str(figure))
    assert "Drift: power_law." in out
    assert figure.read_text().startswith("<?xml")
    found = of.load_cell(str(cell))
    assert found == of.load_cell(str(cell))
    assert found.write_noise.kind == "piecewise_polynomial"
    text, _ = run("fit", str(TABLE), "-o", "-")
    assert text == cell.read_text()
    run("fit", str(TABLE), "-o", str(cell))  # a fitted cell is written anew; other files are not
    cell.write_text('[cell]\ng_min = "1 uS"\n')
    assert "did not write" in run("fit", str(TABLE), "-o", str(cell), code=2)[1]


@pytest.mark.slow
def test_faults_are_one_line(tmp_path: Path) -> None:
    for args, message in (
        (("fit", "no.csv"), "no.csv: no such file; check the path"),
        (("fit", str(tmp_path)), "is a folder, pipe or device"),
        (("fit", str(TABLE), "--figure", "fit.docx"), "--figure fit.docx: ends with no format"),
        (("fit", str(TABLE), "-o", str(tmp_path / "no" / "cell.toml")), "--output"),
    ):
        _, error = run(*args, code=2)
        assert message in error
        assert error.count("\n") == 1
