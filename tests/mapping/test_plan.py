"""Plans against published array counts, and against the events that the `cell` level simulates."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmformer.array import counting, mvm, program, write
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from ohmformer.mapping import Plan, plan
from ohmformer.mapping.write_effort import effort
from ohmformer.mitigation.spec import KVClip
from ohmformer.schema import load, replace
from tests.build import array

CLIPFORMER = load(Crossbar, "clipformer_2024")


def attention_block(hardware: Crossbar, clip: KVClip | None) -> list[Plan]:
    """DeiT-S, 197 tokens: W_Q, W_K and W_V; K^T and V of six heads."""
    top = None if clip is None else clip.max_code(hardware)
    return [
        plan(384, 384, hardware, matrices=3),
        plan(197, 64, hardware, matrices=6, max_code=top),
        plan(64, 197, hardware, matrices=6, max_code=top),
    ]


def test_deit_small_takes_624_arrays_per_polarity() -> None:
    plans = attention_block(CLIPFORMER, None)
    assert [one.arrays_per_polarity for one in plans] == [432, 96, 96]
    assert sum(one.arrays for one in plans) == 1248


def test_clipformer_saves_one_of_four_slices() -> None:
    plans = attention_block(CLIPFORMER, KVClip(alpha=2.0, beta=0.25))
    assert sum(one.arrays_per_polarity for one in plans) == 576
    assert [one.slices for one in plans] == [4, 3, 3]


def test_utilization() -> None:
    weights, keys, values = attention_block(CLIPFORMER, None)
    assert weights.utilization == 1.0
    assert keys.utilization == pytest.approx(197 / 256)
    assert values.utilization == pytest.approx(197 / 256)
    offset = plan(3, 5, array(encoding="offset", rows=10, columns=4, bits=2))
    assert offset.cells == 5 * 3 + 5
    assert offset.utilization == pytest.approx(20 / (10 * 5))


@settings(max_examples=80)
@given(
    sizes=st.tuples(*[st.integers(1, n) for n in (3, 4, 20, 20)]),
    geometry=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    bits=st.integers(2, 6),
    per_cell=st.integers(1, 6),
    encoding=st.sampled_from(["differential", "offset"]),
    kind=st.sampled_from(["bit_serial", "amplitude"]),
    subtract=st.sampled_from(["digital", "analog"]),
    max_code=st.none() | st.integers(1, 3),
    base=st.none() | st.integers(1, 4),
    redundancy=st.integers(1, 3),
)
def test_counts_are_those_of_the_instrument(
    sizes: tuple[int, ...],
    geometry: tuple[int, int],
    bits: int,
    per_cell: int,
    encoding: str,
    kind: str,
    subtract: str,
    max_code: int | None,
    base: int | None,
    redundancy: int,
) -> None:
    matrices, vectors, outputs, inputs = sizes
    hardware = array(
        rows=geometry[0], columns=geometry[1], bits=bits, bits_per_cell=min(bits, per_cell), encoding=encoding,
        inputs={"kind": kind, "bits": 3}, subtract=subtract, adc={"bits": 6},
        radix=None if base is None or encoding == "offset" else min(base, 2 ** min(bits, per_cell)),
        redundancy=redundancy,
    )  # fmt: skip
    predicted = plan(outputs, inputs, hardware, matrices=matrices, max_code=max_code)
    codes = torch.randint(-1, 2, (matrices, outputs, inputs)).float()
    with counting() as counts:
        programmed = write(codes, hardware, max_code=max_code)
        mvm(torch.rand(matrices, vectors, inputs), programmed, level="cell")
    assert counts == predicted.writes() + predicted.reads(vectors)
    assert programmed.slices == predicted.slices
    once = plan(outputs, inputs, replace(hardware, "redundancy", 1), matrices=matrices, max_code=max_code)
    assert (predicted.arrays, predicted.cells) == (redundancy * once.arrays, redundancy * once.cells)
    assert predicted.reads(vectors) == once.reads(vectors).times(redundancy)


def test_nothing_is_counted_outside_and_counters_nest() -> None:
    w = torch.ones(2, 3)
    with counting() as outer:
        program(w, array())
        with counting() as inner:
            program(w, array())
    program(w, array())
    assert outer.cell_writes == inner.cell_writes == 2 * 3 * 4 * 2


@pytest.mark.parametrize("sizes", [(0, 3, 1), (3, -1, 1), (3, 3, 0)])
def test_sizes_are_positive(sizes: tuple[int, int, int]) -> None:
    outputs, inputs, matrices = sizes
    with pytest.raises(BadInput, match="must be 1 or more"):
        plan(outputs, inputs, array(), matrices=matrices)


def test_the_effort_of_a_plan_is_that_of_its_slices() -> None:
    verified = replace(CLIPFORMER, "write_verify", {"writes": [2, 4, 8, 16], "tolerance": 0.05})
    for hardware, top in ((CLIPFORMER, None), (verified, None), (verified, 100)):
        found = plan(197, 64, hardware, max_code=top)
        assert found.effort == effort(hardware, found.slices)
        assert found.effort is found.effort
