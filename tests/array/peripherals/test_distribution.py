"""Drivers and converters against a device-by-device program that shares no code with the package."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from ohmformer.array import mvm
from ohmformer.array.crossbar import write
from ohmformer.array.programmed import Programmed
from ohmformer.array.spec import Crossbar
from ohmformer.streams import Stream
from tests.array.peripherals.device_by_device import Circuit, product
from tests.build import array, cell

N = 4_000
FALSE_ALARM = 1e-6
"""Probability that one comparison of two equal distributions fails (two of means and variances are as rare)."""
X = np.array([3, -1, 0, 7, -5, 2, 6, -7, 1, 4])
W = np.array([9, -4, 15, 0, -13, 7, -15, 2, 6, -1])


def hardware(c: Circuit, **peripherals: Any) -> Crossbar:
    inputs: dict[str, Any] = {"kind": c.kind, "bits": c.input_bits}
    if c.kind == "integrated":
        inputs |= {"phases": len(c.groups), "weighting": c.weighting}
    adc: dict[str, Any] = {"bits": c.adc_bits or "ideal"}
    top = full_scale(c)
    adc["range"] = {"kind": "given", "low": c.span[0] / top, "high": c.span[1] / top}
    parts = {
        "input_noise": c.input_noise, "output_noise": c.output_noise, "gain_mismatch": c.gain,
        "offset_mismatch": c.offset, "read_voltage": c.ratio * 0.3 or None, **peripherals,
    }  # fmt: skip
    read = {"kind": "uniform", "sigma": c.read_sigma / (2**c.bits_per_cell - 1)} if c.read_sigma else {"kind": "none"}
    return array(
        rows=c.rows, columns=4, encoding=c.encoding, subtract=c.subtract, bits=c.slices * c.bits_per_cell,
        bits_per_cell=c.bits_per_cell, inputs=inputs, adc=adc, peripherals=parts,
        cell=cell(read_noise=read, sinh_voltage=0.3 if c.ratio else None),
    )  # fmt: skip


def full_scale(c: Circuit) -> float:
    largest = {"bit_serial": 1, "amplitude": 2 ** (c.input_bits - c.signed) - 1}.get(c.kind)
    return float(c.rows * (2**c.bits_per_cell - 1) * (2 ** max(c.groups) - 1 if largest is None else largest))


def drawn(c: Circuit, x: np.ndarray, w: np.ndarray, level: Any) -> np.ndarray:
    """N results of the package: of as many vectors, or of columns with as many converters if these differ."""
    device, chips = hardware(c), bool(c.gain or c.offset)
    codes = torch.as_tensor(w).double().expand(N if chips else 1, -1)
    programmed: Programmed = write(codes, device, stream=Stream(5), w_range=float(device.max_code))
    vectors = torch.as_tensor(x).double().expand(1 if chips else N, 1, -1)  # N samples of one vector draw at once
    top = float(device.max_input(signed=c.signed))
    return (
        mvm(vectors, programmed, level=level, x_range=top, signed=c.signed, stream=Stream(8, level)).flatten().numpy()
    )


SERIAL = Circuit(input_noise=0.06, read_sigma=0.2, output_noise=0.02, span=(0.0, 14.0))
CASES = {
    "bits": SERIAL,
    "bits with 5-bit converters": Circuit(**{**vars(SERIAL), "adc_bits": 5, "span": (0.0, 12.0)}),
    "signed bits, analog": Circuit(**{**vars(SERIAL), "signed": True, "subtract": "analog", "span": (-14.0, 14.0)}),
    "offset": Circuit(**{**vars(SERIAL), "encoding": "offset", "signed": True, "adc_bits": 6, "span": (0.0, 18.0)}),
    "offset, not rounded": Circuit(**{**vars(SERIAL), "encoding": "offset", "span": (0.0, 18.0)}),
    "amplitude": Circuit(
        kind="amplitude", signed=True, input_noise=0.03, read_sigma=0.3, output_noise=0.01, subtract="analog",
        adc_bits=7, span=(-60.0, 60.0),
    ),
    "curved amplitude": Circuit(
        kind="amplitude", signed=True, input_noise=0.05, read_sigma=0.3, output_noise=0.004, ratio=2.5,
        span=(-60.0, 60.0),
    ),
    "charge": Circuit(
        kind="integrated", signed=True, groups=(3,), input_noise=0.05, read_sigma=0.3, output_noise=0.01, adc_bits=6,
        subtract="analog", span=(-60.0, 60.0),
    ),
    "charge in two phases": Circuit(
        kind="integrated", signed=True, groups=(2, 1), input_noise=0.05, read_sigma=0.3, output_noise=0.01,
        span=(-30.0, 30.0),
    ),
    "repetition": Circuit(
        kind="integrated", weighting="repetition", signed=True, groups=(3,), input_noise=0.05, read_sigma=0.5,
        output_noise=0.01, span=(-60.0, 60.0),
    ),
    "mismatch": Circuit(gain=0.08, offset=0.02, output_noise=0.01, adc_bits=6, span=(0.0, 18.0)),
    "mismatch of offset arrays": Circuit(encoding="offset", gain=0.08, span=(0.0, 18.0)),
    "mismatch of analog pairs": Circuit(
        kind="amplitude", signed=True, subtract="analog", gain=0.08, offset=0.02, span=(-60.0, 60.0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("level", ["cell", "array"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_results_have_the_distribution_of_the_formulas(name: str, level: str) -> None:
    c = CASES[name]
    x, w = (X if c.signed else abs(X)), (np.clip(W, -7, 7) if c.encoding == "offset" else W)
    expected, found = product(x, w, c, N, seed=11), drawn(c, x, w, level)
    if c.encoding == "offset" and (c.gain or c.offset):
        found = found[::4]  # columns of one array share the converter of their reference
    assert expected.std() > 0
    assert ks_2samp(expected, found).pvalue > FALSE_ALARM
    standard_error = expected.std() * np.sqrt(1 / N + 1 / len(found))
    assert abs(expected.mean() - found.mean()) < 4.9 * standard_error
    kurtosis = 3.5
    spread = np.sqrt((kurtosis - 1) * (1 / N + 1 / len(found)))
    assert abs(found.var() / expected.var() - 1) < 4.9 * spread


@pytest.mark.parametrize("name", ["bits", "amplitude", "charge in two phases", "offset, not rounded"])
def test_level_noise_sums_conversions_in_closed_form(name: str) -> None:
    """Read noise of cells and rounding are left out, noise of drivers and converters is not."""
    c = Circuit(**{**vars(CASES[name]), "read_sigma": 0.0, "adc_bits": None})
    x = X if c.signed else abs(X)
    w = np.clip(W, -7, 7) if c.encoding == "offset" else W
    rounded = Circuit(**{**vars(CASES[name]), "adc_bits": 8})
    assert ks_2samp(product(x, w, c, N, seed=12), drawn(rounded, x, w, "noise")).pvalue > FALSE_ALARM
