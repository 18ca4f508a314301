"""Hours of use in a comparison of accelerators."""

from __future__ import annotations

from pathlib import Path

import pytest

from ohmformer.study.compare_platforms import compared

STUDY = """
name = "hours"
model.source = "bundled:fashion-vit"
task = { source = "bundled:fashion-mnist", limit = 4 }
hardware.base = "clipformer_tcad_2024"
simulation = { level = "noise", hours = 100 }
trials.chips = 2
"""


@pytest.mark.slow
def test_platforms_are_compared_after_the_hours_of_use_of_the_study(tmp_path: Path) -> None:
    """`compare` gives the weights of every platform their age; a GPU, whose weights are in no cells, is named."""
    file = tmp_path / "hours.toml"
    file.write_text(STUDY)
    found = compared(str(file), ["clipformer_tcad_2024", "gtx_1060"], out=tmp_path / "out", workers=1)
    assert [point.accuracy is not None for point in found.points] == [True, True]
    assert "gtx_1060: simulation.hours = 100 leaves static weights as they are: they are not in cells" in found.notes
