"""Fast writes for training have the distribution of writing cell by cell.

Seeds are fixed, so these tests always give the same verdict. Every comparison rejects a true hypothesis with
probability 1e-5; there are about 600, so another choice of seeds would fail one somewhere with a probability of 0.6 %.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats

from ohmformer.array.folded_writes import write_folded
from ohmformer.array.gaussian_writes.one_number import clamp_is_negligible, writable, write_normal
from ohmformer.streams import SampleStreams, Stream, TokenStreams
from ohmformer.streams.backends import Kernels
from tests.build import LOGNORMAL, NONE, PIECES, POLYNOMIAL, PROPORTIONAL, TABLE, UNIFORM, array, cell
from tests.gpu.kernels import needs_numba

ALARM = 1e-5
DRAWS = 20_000
CODES = torch.tensor([0.0, 1.0, -2.0, 3.0, 6.0, -85.0, 200.0, -255.0])
WEAK = {"kind": "sqrt_range", "gamma": 1.0, "sigma": 0.02}
STRONG = {"kind": "sqrt_range", "gamma": 5.0, "sigma": 0.2}
CASES = {
    "far from the bounds": (array(cell=cell(write_noise=WEAK)), True),
    "strong": (array(cell=cell(write_noise=STRONG)), False),
    "a ceiling": (array(cell=cell(write_noise={**STRONG, "gamma": 1.0}, g_ceiling=1.1e-5)), False),
    "one cell per value": (array(cell=cell(write_noise=STRONG), bits_per_cell=8), False),
    "cells that count alike": (array(cell=cell(write_noise=STRONG), radix=1, bits_per_cell=7, bits=16), False),
    "slices of base 3": (array(cell=cell(write_noise=WEAK), radix=3, bits=12), True),
    "1-bit cells": (array(cell=cell(write_noise=STRONG), bits_per_cell=1), False),
    "copies far from the bounds": (array(cell=cell(write_noise=WEAK), redundancy=3), True),
    "copies, strong": (array(cell=cell(write_noise=STRONG), redundancy=2), False),
    "both halves": (array(cell=cell(g_min=5e-6, write_noise=UNIFORM)), True),
    "proportional": (array(cell=cell(write_noise=PROPORTIONAL)), True),
    "pieces": (array(cell=cell(g_min=5e-6, g_max=25e-6, write_noise=PIECES)), True),
    "table with bias": (
        array(cell=cell(g_min=4e-6, write_noise={**TABLE, "mean": [2e-7, 2e-6, 6.3e-6, 1.2e-5]})),
        True,
    ),
    "table with bias near the bounds": (
        array(
            cell=cell(g_min=0.0, write_noise={**TABLE, "std": [0.0, 2e-6, 3e-6, 4e-6], "mean": [0, 3e-6, 6e-6, 1e-5]})
        ),
        False,
    ),
    "phase change": (array(cell=cell(g_min=5e-6, g_max=25e-6, write_noise=POLYNOMIAL)), True),
}


@pytest.mark.parametrize("kernels", ["torch", pytest.param("compiled", marks=needs_numba)])
@pytest.mark.parametrize("name", CASES)
def test_what_cells_hold_has_the_same_distribution(name: str, kernels: Kernels) -> None:
    hardware, one_number = CASES[name]
    assert writable(hardware)
    assert clamp_is_negligible(hardware) == one_number
    codes = CODES[:, None].expand(-1, DRAWS)
    found = [
        write(codes, hardware, stream=Stream(n, kernels=how), w_range=2.0).values.double().numpy()
        for n, (write, how) in enumerate(((write_folded, "torch"), (write_normal, kernels)))
    ]
    for one, other in zip(*found, strict=True):
        if one.std() == 0:
            assert (one == other).all()
            continue
        assert stats.ttest_ind(one, other, equal_var=False).pvalue > ALARM
        squares = [(part - part.mean()) ** 2 for part in (one, other)]
        assert stats.ttest_ind(*squares, equal_var=False).pvalue > ALARM
        assert stats.ks_2samp(one.round(6), other.round(6)).pvalue > ALARM


@pytest.mark.parametrize(
    "fields",
    [
        {"encoding": "offset"},
        {"cell": cell(write_noise=LOGNORMAL)},
        {"cell": cell(write_noise=UNIFORM)},
        {"cell": cell(write_noise=WEAK, faults={"stuck_at_g_min": 0.1})},
        {"cell": cell(write_noise=WEAK, drift={"kind": "power_law", "t0": 1.0, "nu": 0.1}), "age": 10.0},
    ],
)
def test_what_else_happens_to_cells_is_written_cell_by_cell(fields: dict[str, Any]) -> None:
    assert not writable(array(**fields))


@pytest.mark.parametrize("noise", [WEAK, STRONG])
@pytest.mark.parametrize("major", ["outputs", "inputs"])
def test_each_sample_draws_its_own_numbers_in_any_batch(noise: dict[str, Any], major: Any) -> None:
    hardware = array(cell=cell(write_noise=noise))
    codes = torch.randint(-255, 256, (2, 3, 5, 7)).float()
    both = write_normal(codes, hardware, stream=SampleStreams((Stream("a"), Stream("b"))), major=major).values
    one = write_normal(codes[1:], hardware, stream=SampleStreams((Stream("b"),)), major=major).values
    assert torch.equal(both[1:], one)
    places = range(5 if major == "outputs" else 7)
    streams = TokenStreams((Stream("a"),) * 2, numbers=(tuple(places), tuple(places)))
    same = write_normal(codes[:1].expand(2, -1, -1, -1), hardware, stream=streams, major=major).values
    assert torch.equal(same[0], same[1])


def test_large_matrices_are_written_whole_and_exact_cells_hold_their_codes() -> None:
    codes = torch.randint(-255, 256, (300, 250)).float()
    hardware = array(cell=cell(write_noise=WEAK))
    held = write_normal(codes, hardware, stream=0, w_range=2.0).values
    unit = 2.0 / 255
    assert float((held - codes * unit).abs().max()) < 6 * unit * 64 * 0.02 * 3
    assert float(((held - codes * unit) != 0).float().mean()) > 0.98
    exact = write_normal(codes, array(cell=cell(write_noise=NONE)), w_range=2.0)
    assert torch.equal(exact.values, codes * unit)
