"""What `print` shows of large objects is short, and leaves equality and pickles as they are."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

import ohmformer as of
from ohmformer.cost.placement import place

WORK, HARDWARE = of.shapes("gpt2", tokens=1, phase="decode", context=7), of.load("xformer_tvlsi_2023")
PLACED = place(WORK, HARDWARE)


def test_each_is_one_short_line_with_its_sizes() -> None:
    assert str(WORK).startswith("Workload(GPT-2")
    assert "decode, batch 1, tokens 1, 7 cached; layers 12, operations " in str(WORK)
    assert str(HARDWARE).startswith("Accelerator(X-Former: ")
    assert "; projection crossbar 128 x 128, key sram " in str(HARDWARE)
    assert f"; layers {len(PLACED.layers)}, arrays: projection {PLACED.arrays['projection']:,}, " in str(PLACED)
    timeline = of.simulate(WORK, HARDWARE).timeline
    assert f"dataflow layer_serial, jobs {len(timeline.jobs):,})" in str(timeline)
    for found in (WORK, HARDWARE, PLACED, timeline):
        assert str(found) == repr(found)
        assert len(str(found)) < 500
        assert "\n" not in str(found)


def test_a_title_cannot_break_the_line() -> None:
    odd = of.replace(HARDWARE, "title", "a\nb\x1b[2J")
    assert str(odd).startswith("Accelerator(a b\\x1b[2J; ")
    assert str(replace(WORK, title="a\nb")).startswith("Workload(a b: ")
    assert "on a b\\x1b[2J; " in str(place(WORK, odd))


@pytest.mark.parametrize("value", [WORK, HARDWARE, PLACED])
def test_equality_and_pickles_are_those_of_the_values(value: object) -> None:
    assert pickle.loads(pickle.dumps(value)) == value
    if value is not PLACED:
        assert value != of.replace(HARDWARE, "title", "x")
        assert value != replace(WORK, tokens=2)
