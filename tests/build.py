"""Small pieces of hardware for tests, in SI units: `array(rows=8, cell=cell(write_noise=UNIFORM))`."""

from typing import Any

from ohmformer.array.spec import Crossbar
from ohmformer.device.spec import Cell

NONE = {"kind": "none"}
SQRT_RANGE = {"kind": "sqrt_range", "gamma": 1.5, "sigma": 0.2}
PROPORTIONAL = {"kind": "proportional", "sigma": 0.1}
UNIFORM = {"kind": "uniform", "sigma": 0.08}
LOGNORMAL = {"kind": "lognormal", "sigma": 0.3}
POLYNOMIAL = {"kind": "polynomial", "g_ref": 25e-6, "c0": 0.26348e-6, "c1": 1.9650e-6, "c2": -1.1731e-6}
PIECES = {
    "kind": "piecewise_polynomial", "g_ref": 2e-5, "borders": [3e-6, 9e-6],
    "coefficients": [[2e-7, 4e-6], [6e-7, 0.0, 1e-6, -2e-6, 1.5e-6], [1.2e-6, -8e-7]],
}  # fmt: skip
"""Three pieces of degrees 1, 4 and 1, with jumps between them."""
TABLE = {
    "kind": "table", "targets": [0.0, 2.5e-6, 6e-6, 1.1e-5],
    "std": [3e-7, 7e-7, 4e-7, 8e-7], "mean": [4e-7, 2.2e-6, 6.3e-6, 1.07e-5],
}  # fmt: skip
"""Cells whose mean is up to 0.4 uS above or below the target."""
WRITE_NOISES = (NONE, SQRT_RANGE, PROPORTIONAL, UNIFORM, LOGNORMAL, POLYNOMIAL, PIECES, TABLE)

FLICKER = {"kind": "pcm_flicker", "q_scale": 0.0088, "q_power": 0.65, "q_max": 0.2, "t_read": 250e-9}
PCM_DRIFT = {
    "kind": "pcm_drift", "t0": 20.0, "mu_slope": -0.0155, "mu_offset": 0.0244, "mu_min": 0.049, "mu_max": 0.1,
    "s_slope": -0.0125, "s_offset": -0.0059, "s_min": 0.008, "s_max": 0.045,
}  # fmt: skip


def cell(**fields: Any) -> Cell:
    """An RRAM cell of 0.1 to 10 uS, ideal but for `fields`."""
    return Cell.model_validate({"g_min": 1e-7, "g_max": 1e-5, **fields})


def array(**fields: Any) -> Crossbar:
    """A 64 x 64 array of 2-bit cells with 8-bit codes and inputs, ideal but for `fields`."""
    inputs = fields.pop("inputs", {})
    adc = fields.pop("adc", {})
    basis = {"rows": 64, "columns": 64, "cell": cell(), "inputs": {"kind": "bit_serial", **inputs}, "adc": adc}
    return Crossbar.model_validate({**basis, **fields})
