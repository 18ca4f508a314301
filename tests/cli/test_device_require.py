"""device require: tables, files, and what it says when it cannot."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ohmformer.study.results.requirements import Requirements
from tests.cli.test_cli import Run, ohmformer, write_study

__all__ = ["ohmformer"]  # the fixture

ALLOWED = ("--allow-python", "tests.study.small", "--workers", "1", "--step", "1")


@pytest.mark.slow
def test_limits_are_shown_and_written(ohmformer: Run, tmp_path: Path) -> None:
    write_study(tmp_path / "study.toml")
    asked = ("device", "require", "study.toml", "--loss", "45 %", "--quantity", "write_noise", *ALLOWED)
    code, out, err = ohmformer(*asked)
    assert code == 0, err
    assert "small: loss up to 45 points of accuracy" in out
    assert "write noise" in out
    assert err.count("write_noise = ") == len(set(err.splitlines())) - 1
    folder = tmp_path / "ohmformer-runs" / "small"
    written = {f"requirements.{ending}" for ending in ("json", "csv", "svg", "png")}
    assert {file.name for file in folder.iterdir()} >= {"results.sqlite", *written}
    text = (folder / "requirements.json").read_text()
    found = Requirements.model_validate_json(text)
    with (folder / "requirements.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["limit"]) == found.requirements[0].limit
    assert ohmformer(*asked, "--json", "-")[1] == text
    code, out, err = ohmformer(*asked[:4], "44 %", *asked[5:])
    assert code == 0, err
    assert "loss up to 44 points" in out


@pytest.mark.slow
def test_a_map_has_a_frontier(ohmformer: Run, tmp_path: Path) -> None:
    write_study(tmp_path / "study.toml")
    asked = ("device", "require", "study.toml", "--loss", "45 %", "--map", "write_noise", "read_noise", "--grid", "2")
    code, out, err = ohmformer(*asked, *ALLOWED, "--json", "map.json")
    assert code == 0, err
    assert "write noise and read noise together" in out
    found = json.loads((tmp_path / "map.json").read_text())
    assert found["requirements"] == []
    assert len(found["frontier"]["rows"]) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--loss", "1"), "loss = '1': has no unit"),
        ((), "missing option '--loss'"),
        (("--loss", "5 %", "--quantity", "nois"), "quantity 'nois': is not known"),
        (("--loss", "5 %", "--quantity", "endurance"), "have not been written before"),
        (("--loss", "5 %", "--kind", "uniform"), "write QUANTITY=KIND"),
        (("--loss", "5 %", "--set", "trials.chips=1"), "one chip says nothing of others"),
        (("--loss", "5 %", "--set", "trials.chip=1"), "trials.chip"),
    ],
)
def test_bad_options_end_in_one_line(ohmformer: Run, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    write_study(tmp_path / "study.toml")
    code, out, err = ohmformer("device", "require", "study.toml", *options, *ALLOWED)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_modules_need_permission(ohmformer: Run, tmp_path: Path) -> None:
    write_study(tmp_path / "study.toml")
    code, _, err = ohmformer("device", "require", "study.toml", "--loss", "5 %")
    assert code == 2
    assert "--allow-python tests.study.small" in err
