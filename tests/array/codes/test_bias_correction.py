"""Bias-corrected codes: least bias, monotonic means, and plain rounding without noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmformer.array import encoding, held_moments, quantize_unbiased, unbiased_codes, write_folded
from ohmformer.array.codes.bias_correction import steps_per_code
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput
from tests.build import NONE, PCM_DRIFT, array, cell
from tests.device.test_moments import NOISES

TRADES = st.sampled_from([0.0, 0.3, 1.0, 5.0])


@st.composite
def arrays(draw: st.DrawFn, noises: st.SearchStrategy[Any] = NOISES) -> Crossbar:
    bits_per_cell = draw(st.integers(1, 3))
    return array(
        bits=draw(st.integers(bits_per_cell, 8)),
        bits_per_cell=bits_per_cell,
        radix=draw(st.none() | st.integers(1, 2**bits_per_cell)),
        redundancy=draw(st.integers(1, 3)),
        cell=cell(
            g_min=draw(st.sampled_from([0.0, 1e-7, 2e-6])),
            g_ceiling=draw(st.sampled_from([None, 1.2e-5])),
            write_noise=draw(noises),
        ),
    )


def table_points(hardware: Crossbar) -> torch.Tensor:
    """Magnitudes of the points of a table, in codes."""
    steps = steps_per_code(hardware)
    return torch.arange(steps * hardware.max_code + 1, dtype=torch.float64) / steps


@given(arrays())
def test_the_bias_is_never_larger_than_that_of_plain_rounding(hardware: Crossbar) -> None:
    x, (mean, _) = table_points(hardware), held_moments(hardware)
    bias, plain = (mean[unbiased_codes(hardware)] - x).abs(), (mean[x.round().long()] - x).abs()
    assert bool((bias <= plain + 1e-9 * hardware.max_code).all())


@given(arrays(), TRADES, st.data())
def test_no_other_code_is_better(hardware: Crossbar, trade: float, data: st.DataObject) -> None:
    top = data.draw(st.none() | st.integers(1, hardware.max_code))
    x, (mean, variance) = table_points(hardware), held_moments(hardware, top)
    loss = (mean - x[1:, None]) ** 2 + trade * variance
    found = loss.gather(1, unbiased_codes(hardware, trade, top)[1:, None]).squeeze(1)
    assert bool((found <= loss.amin(1) + 1e-9 * (1 + loss.amin(1))).all())


@given(arrays(), TRADES)
def test_the_mean_that_cells_hold_grows_with_the_value(hardware: Crossbar, trade: float) -> None:
    codes = unbiased_codes(hardware, trade)
    assert int(codes[0]) == 0
    assert bool((held_moments(hardware)[0][codes].diff() >= 0).all())


@given(st.floats(0, 1.5), TRADES, st.integers(1, 3))
def test_codes_grow_where_slices_count_alike(sigma: float, trade: float, bits_per_cell: int) -> None:
    device = cell(write_noise={"kind": "sqrt_range", "sigma": sigma})
    codes = unbiased_codes(array(radix=1, bits_per_cell=bits_per_cell, cell=device), trade)
    assert bool((codes.diff() >= 0).all())


@settings(max_examples=60)
@given(arrays(st.just(NONE)), st.sampled_from([torch.float32, torch.float64]), TRADES, st.integers(0, 2**31))
def test_without_noise_it_is_rounding(hardware: Crossbar, dtype: torch.dtype, trade: float, seed: int) -> None:
    """Bit-identical, also just beside the midpoint of two codes and beyond the range."""
    table, top = unbiased_codes(hardware, trade), hardware.max_code
    assert torch.equal(table, table_points(hardware).round().long())
    middle = torch.arange(-top - 1, top + 1, dtype=dtype) + 0.5
    beside = [torch.nextafter(middle, torch.full_like(middle, end)) for end in (-1e9, 1e9)]
    drawn = torch.randn(500, generator=torch.Generator().manual_seed(seed), dtype=dtype) * top
    values, full = torch.cat([middle, *beside, drawn])[None], torch.tensor(float(top), dtype=dtype)
    assert torch.equal(quantize_unbiased(values, hardware, full, table), encoding.quantize(values, hardware, full))
    odd = full / 3
    assert torch.equal(quantize_unbiased(values, hardware, odd, table), encoding.quantize(values, hardware, odd))


def test_sixteen_bits_are_no_trouble() -> None:
    assert torch.equal(unbiased_codes(array(bits=16)), table_points(array(bits=16)).round().long())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_finds_the_codes_of_the_same_values(dtype: torch.dtype) -> None:
    table = unbiased_codes(STRONG)
    w = torch.linspace(-1.5, 1.5, 301).to(dtype)[None]
    codes = quantize_unbiased(w, STRONG, torch.ones((), dtype=dtype), table)
    assert codes.dtype == dtype
    assert torch.equal(codes.float(), quantize_unbiased(w.float(), STRONG, torch.ones(()), table))


STRONG = array(radix=1, cell=cell(write_noise={"kind": "sqrt_range", "sigma": 1.2}))


def test_values_keep_their_signs_and_ranges_broadcast() -> None:
    table = unbiased_codes(STRONG)
    w = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0))
    w_range = w.abs().amax(-1, keepdim=True) * torch.tensor([0.5, 1.0, 2.0])[:, None]
    codes = quantize_unbiased(w, STRONG, w_range, table)
    assert (codes.shape, codes.dtype) == (w.shape, w.dtype)
    assert torch.equal(codes, -quantize_unbiased(-w, STRONG, w_range, table))
    place = (w.abs() / w_range * (len(table) - 1)).round().clamp(max=len(table) - 1).long()
    assert torch.equal(codes.abs().long(), table[place])


def test_the_bias_of_the_clamp_is_gone() -> None:
    """A value of 6 of 12 codes in 200,000 cells: plain rounding holds 7.9 on average, the best code 5.7."""
    w, full = torch.full((400, 500), -6.0, dtype=torch.float64), torch.tensor(12.0)
    plain = write_folded(encoding.quantize(w, STRONG, full), STRONG, stream=1, w_range=12.0).values.mean()
    codes = quantize_unbiased(w, STRONG, full, unbiased_codes(STRONG))
    best = write_folded(codes, STRONG, stream=1, w_range=12.0).values.mean()
    # The deviation of a value is 3 to 4 codes; five standard errors are 0.05.
    assert float(codes[0, 0]) == -4
    assert float(plain) == pytest.approx(-float(held_moments(STRONG)[0][6]), abs=0.05)
    assert float(plain) < -7.5
    assert float(best) == pytest.approx(-5.67, abs=0.06)


def test_variance_that_counts_lowers_codes() -> None:
    sums = [int(unbiased_codes(STRONG, trade).sum()) for trade in (0.0, 1.0, 5.0)]
    assert sums[0] > sums[1] > sums[2] > 0


def test_a_table_is_made_once() -> None:
    assert unbiased_codes(STRONG, 0.5) is unbiased_codes(STRONG, 0.5)


@pytest.mark.parametrize("trade", [-1.0, float("nan"), float("inf")])
def test_a_trade_that_is_none_is_refused(trade: float) -> None:
    with pytest.raises(BadInput, match=r"trade = .*: must be 0 or more, and finite"):
        unbiased_codes(STRONG, trade)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(BadInput, match="a table of 2296 points is not one of this array"):
        quantize_unbiased(torch.ones(1, 2), STRONG, torch.tensor(1.0), unbiased_codes(array()))
    with pytest.raises(BadInput, match="NaN or infinity"):
        quantize_unbiased(torch.full((1, 2), float("nan")), STRONG, torch.tensor(1.0), unbiased_codes(STRONG))
    with pytest.raises(BadInput, match="the cells drift"):
        unbiased_codes(array(cell=cell(drift=PCM_DRIFT), age=100.0))
