"""Level `array` against level `cell`: outputs with read noise have the same distribution.

Seeds are fixed, so these tests always give the same verdict. Every single comparison rejects a true hypothesis with
probability 1e-4; there are about 600, so another choice of seeds would fail one somewhere with a probability of 6 %.
"""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from ohmformer.array import mvm, program
from ohmformer.array.programmed import Programmed
from ohmformer.streams import Stream
from tests.build import FLICKER, PCM_DRIFT, PROPORTIONAL, SQRT_RANGE, UNIFORM, array, cell

ALARM = 1e-4
DRAWS = 3000
Samples = np.ndarray
"""[draws, outputs]"""


def outputs(programmed: Programmed, level: Any, *, signed: bool) -> Samples:
    """One input vector, read again and again."""
    inputs = programmed.inputs
    x = torch.linspace(-1 if signed else 0, 1, inputs, dtype=torch.float64)
    many = x.expand(DRAWS, 1, inputs)
    y = mvm(many, programmed, level=level, signed=signed, stream=Stream(7, level)).squeeze(1).numpy()
    return y.round(9)  # what a converter gives is discrete; without its last digits, equal values are equal


def compare(a: Samples, b: Samples) -> None:
    """Mean, variance and the whole distribution of every output."""
    assert a.std(axis=0).min() > 0, "the test would prove nothing without noise"
    for one, other in zip(a.T, b.T, strict=True):
        assert stats.ttest_ind(one, other, equal_var=False).pvalue > ALARM
        assert same_variance(one, other) > ALARM
        assert stats.ks_2samp(one, other).pvalue > ALARM


def same_variance(a: np.ndarray, b: np.ndarray) -> float:
    """p-value for equal variances, with the standard errors that the samples themselves show."""
    squares = [(part - part.mean()) ** 2 for part in (a, b)]
    error = np.sqrt(sum(part.var() / len(part) for part in squares))
    return float(2 * stats.norm.sf(abs(squares[0].mean() - squares[1].mean()) / error))


def covariance_difference(a: Samples, b: Samples) -> np.ndarray:
    """Differences of covariances [outputs, outputs] in units of their standard error."""
    means, errors = [], []
    for part in (a, b):
        centered = part - part.mean(axis=0)
        products = centered[:, :, None] * centered[:, None, :]
        means.append(products.mean(axis=0))
        errors.append(products.var(axis=0) / len(part))
    return np.asarray((means[0] - means[1]) / np.sqrt(errors[0] + errors[1]))


def matrix() -> torch.Tensor:
    return torch.randn(5, 22, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


ENCODINGS, STREAMING, SUBTRACTION = ["differential", "offset"], ["bit_serial", "amplitude"], ["digital", "analog"]
CHOICES = list(product(ENCODINGS, STREAMING, SUBTRACTION, ["ideal", 5], [True, False]))


@pytest.mark.parametrize(("encoding", "kind", "subtract", "bits", "signed"), CHOICES)
def test_array_is_distributed_as_cell(encoding: str, kind: str, subtract: str, bits: Any, signed: bool) -> None:
    hardware = array(
        rows=9, columns=3, bits=5, bits_per_cell=3, encoding=encoding, subtract=subtract,
        inputs={"kind": kind, "bits": 4}, adc={"bits": bits},
        cell=cell(write_noise=SQRT_RANGE, read_noise={"kind": "proportional", "sigma": 0.2}),
    )  # fmt: skip
    programmed = program(matrix(), hardware, stream=1)
    a, b = (outputs(programmed, level, signed=signed) for level in ("array", "cell"))
    compare(a, b)
    assert np.abs(covariance_difference(a, b)).max() < stats.norm.isf(ALARM / 2)


@pytest.mark.parametrize("bits", ["ideal", 5])
@pytest.mark.parametrize("base", [1, 2, 3, 4])
def test_array_is_distributed_as_cell_whatever_slices_count(base: int, bits: Any) -> None:
    hardware = array(
        rows=9, columns=3, bits=6, radix=base, adc={"bits": bits}, inputs={"bits": 4},
        cell=cell(write_noise=SQRT_RANGE, read_noise={"kind": "proportional", "sigma": 0.2}),
    )  # fmt: skip
    programmed = program(matrix(), hardware, stream=1)
    compare(*(outputs(programmed, level, signed=True) for level in ("array", "cell")))


@pytest.mark.parametrize(
    ("redundancy", "encoding", "subtract", "bits"),
    [
        (2, "differential", "digital", "ideal"),
        (2, "differential", "digital", 5),
        (3, "differential", "analog", 5),
        (3, "offset", "digital", "ideal"),
        (2, "offset", "analog", 5),
    ],
)
def test_array_is_distributed_as_cell_with_copies(redundancy: int, encoding: str, subtract: str, bits: Any) -> None:
    hardware = array(
        rows=9, columns=3, bits=5, bits_per_cell=3, redundancy=redundancy, encoding=encoding, subtract=subtract,
        inputs={"bits": 4}, adc={"bits": bits},
        cell=cell(write_noise=SQRT_RANGE, read_noise={"kind": "proportional", "sigma": 0.2}),
    )  # fmt: skip
    programmed = program(matrix(), hardware, stream=1)
    a, b = (outputs(programmed, level, signed=True) for level in ("array", "cell"))
    compare(a, b)
    assert np.abs(covariance_difference(a, b)).max() < stats.norm.isf(ALARM / 2)


@pytest.mark.parametrize("bits", ["ideal", 6])
@pytest.mark.parametrize(
    "fields",
    [
        {"cell": cell(read_noise=UNIFORM)},
        {"cell": cell(read_noise=PROPORTIONAL, write_noise=UNIFORM), "bits_per_cell": 8},
        {"cell": cell(g_min=0.0, g_max=25e-6, read_noise=FLICKER, drift=PCM_DRIFT), "age": 86400.0},
        {"cell": cell(g_min=0.0, read_noise=FLICKER, faults={"stuck_at_g_max": 0.2}), "age": 20.0},
    ],
    ids=["uniform", "one cell per value", "flicker and drift", "flicker and faults"],
)
@pytest.mark.slow
def test_other_kinds_of_read_noise(fields: dict[str, Any], bits: Any) -> None:
    programmed = program(matrix(), array(rows=16, adc={"bits": bits}, **fields), stream=2)
    compare(*(outputs(programmed, level, signed=True) for level in ("array", "cell")))


@pytest.mark.parametrize("level", ["array", "cell"])
@pytest.mark.parametrize("bits", ["ideal", 7])
def test_columns_of_an_array_share_the_noise_of_its_reference(level: Any, bits: Any) -> None:
    hardware = array(encoding="offset", columns=3, rows=32, adc={"bits": bits}, cell=cell(read_noise=PROPORTIONAL))
    y = outputs(program(matrix(), hardware), level, signed=True)
    correlation = np.corrcoef(y.T)
    same = np.equal.outer(np.arange(5) // 3, np.arange(5) // 3)
    np.fill_diagonal(correlation, np.nan)
    assert np.nanmin(correlation[same]) > 0.2
    assert np.nanmax(np.abs(correlation[~same])) < stats.norm.isf(ALARM / 2) / np.sqrt(DRAWS)


def test_offset_with_a_scale_by_column_scales_the_shared_noise_by_column() -> None:
    hardware = array(encoding="offset", rows=32, scale="column", cell=cell(read_noise=PROPORTIONAL))
    w = matrix() * torch.tensor([1.0, 10.0, 0.1, 1.0, 3.0], dtype=torch.float64)[:, None]
    programmed = program(w, hardware)
    a, b = (outputs(programmed, level, signed=True) for level in ("array", "cell"))
    compare(a, b)
    assert np.abs(covariance_difference(a, b)).max() < stats.norm.isf(ALARM / 2)


def test_level_noise_leaves_read_noise_and_converters_out() -> None:
    hardware = array(adc={"bits": 3}, cell=cell(read_noise=PROPORTIONAL, write_noise=SQRT_RANGE))
    programmed = program(matrix(), hardware)
    x = torch.linspace(-1, 1, 22, dtype=torch.float64)[None]
    y = mvm(x, programmed, level="noise")
    quiet = array(cell=cell(write_noise=SQRT_RANGE))
    torch.testing.assert_close(y, mvm(x, program(matrix(), quiet), level="array"))
