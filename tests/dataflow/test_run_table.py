"""What `print` and notebooks show of a run."""

from __future__ import annotations

from ohmformer import units
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import SequenceBlocking
from ohmformer.hardware.entries import load
from ohmformer.schema import replace
from ohmformer.workload.shapes import shapes

HARDWARE = replace(load("xformer_tvlsi_2023"), "title", "X <b>\x1b[31m")
RUN = simulate(shapes("gpt2", phase="decode", context=16), HARDWARE, SequenceBlocking(block=8))


def test_a_run_prints_as_a_short_table_with_its_own_numbers() -> None:
    lines = str(RUN).splitlines()
    shown = dict(line.split("  ", 1) for line in lines)
    shown = {name: value.strip() for name, value in shown.items()}
    assert shown["latency"] == units.show(RUN.latency, "s")
    assert shown["energy"] == units.show(RUN.energy, "J")
    assert shown["area"] == units.show(RUN.area, "m^2")
    assert shown["workload"].endswith("decode, 1 token, 1 sample, 16 cached tokens")
    assert shown["dataflow"] == "sequence_blocking"
    largest = max(RUN.energy_by("component").items(), key=lambda part: part[1])[0]
    assert shown["energy by component"].startswith(f"{largest} ")
    assert len(str(RUN)) < 2000
    assert len(repr(RUN)) < 200
    assert "\n" not in repr(RUN)


def test_a_notebook_gets_an_html_table_without_markup_or_control_characters_of_titles() -> None:
    html = RUN._repr_html_()
    assert html.startswith("<table><tr><th>workload</th>")
    assert "X &lt;b&gt;\ufffd[31m" in html
    assert "\x1b" not in html + str(RUN) + repr(RUN)
