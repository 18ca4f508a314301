"""Every kind of noise, drift and faults against a program that simulates each device on its own.

The program is written from the formulas of the kinds, in numpy, and shares nothing with the package. Mean, variance and
distribution of the result of a whole product agree: within 4.9 standard errors, and by the test of Kolmogorov and
Smirnov at a false-alarm rate of 1e-6 each. Seeds are fixed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ohmformer.array.crossbar import write
from ohmformer.array.multiply import mvm
from ohmformer.device.spec import Cell
from tests.build import array

Array = npt.NDArray[np.float64]

uS, G_MAX, DRAWS = 1e-6, 30e-6, 3000
CODES, INPUTS, TOP = (37, -51, 0, 12, 63, -7), (7, -3, 2, -7, 1, 5), 7.0
NONE: dict[str, Any] = {"kind": "none"}
PIECES: dict[str, Any] = {
    "kind": "piecewise_polynomial", "g_ref": 40 * uS, "borders": [8 * uS, 21 * uS],
    "coefficients": [
        [0.5 * uS, 3 * uS, 0, 0, 0, 40 * uS],
        [2 * uS, -1 * uS, 0.5 * uS, 2 * uS, -1 * uS, 0.3 * uS],
        [4 * uS, -3 * uS, 1 * uS, -1 * uS, 0.5 * uS, 0.2 * uS],
    ],
}  # fmt: skip
AGED_PIECES = PIECES | {
    "times": [2.0, 700.0],
    "coefficients": [*PIECES["coefficients"], [0.9 * uS], [3 * uS, 1 * uS], [1 * uS, 0, 0, 0, 0, 2 * uS]],
}
TABLE: dict[str, Any] = {
    "kind": "table", "targets": [0, 1 * uS, 7 * uS, 8 * uS, 22 * uS, G_MAX],
    "std": [0.3 * uS, 0.9 * uS, 1.5 * uS, 0.4 * uS, 2 * uS, 1 * uS],
    "mean": [0.5 * uS, 0.7 * uS, 8 * uS, 9 * uS, 21 * uS, 28 * uS],
}  # fmt: skip
WRITES: dict[str, dict[str, Any]] = {
    "none": NONE,
    "sqrt_range": {"kind": "sqrt_range", "gamma": 1.7, "sigma": 0.13},
    "proportional": {"kind": "proportional", "sigma": 0.22},
    "uniform": {"kind": "uniform", "sigma": 0.11},
    "polynomial": {"kind": "polynomial", "g_ref": 40 * uS, "c0": 1.1 * uS, "c1": 6 * uS, "c2": -3 * uS},
    "lognormal": {"kind": "lognormal", "sigma": 0.45},
    "pieces": PIECES,
    "table": TABLE,
}
READS: dict[str, dict[str, Any]] = {
    "none": NONE,
    "proportional": {"kind": "proportional", "sigma": 0.2},
    "uniform": {"kind": "uniform", "sigma": 0.04},
    "flicker": {"kind": "pcm_flicker", "q_scale": 0.02, "q_power": 0.7, "q_max": 0.3, "t_read": 1e-6},
    "table": {"kind": "flicker_table", "g": [0, 0.05, 0.4, 1], "q": [0.05, 0.04, 0.02, 0.01], "t_read": 1e-5},
}
DRIFTS: dict[str, dict[str, Any]] = {
    "power_law": {"kind": "power_law", "t0": 3.0, "nu": 0.05, "nu_std": 0.06},
    "pcm": {
        "kind": "pcm_drift", "t0": 7.0, "mu_slope": -0.02, "mu_offset": 0.03, "mu_min": 0.03, "mu_max": 0.12,
        "s_slope": -0.02, "s_offset": 0.0, "s_min": 0.01, "s_max": 0.08,
    },
    "table": {
        "kind": "power_law_table", "t0": 5.0, "g": [0, 0.1, 0.15, 0.6, 1], "nu": [0.1, 0.02, 0.08, 0.05, 0.01],
        "nu_std": [0.1, 0.05, 0.0, 0.02, 0.03],
    },
    "exponential": {"kind": "exponential", "tau": 40.0, "tau_spread": 0.5, "stretch": 0.7, "g_rest": 4 * uS},
    "to_g_min": {"kind": "exponential", "tau": 40.0, "tau_spread": 0.3},
}  # fmt: skip


class Devices:
    """Cells from `low` to `G_MAX` that are simulated one by one, by the formulas of their kinds."""

    def __init__(self, low: float, spec: dict[str, Any], age: float, seed: int) -> None:
        self.low, self.span, self.age, self.rng = low, G_MAX - low, age, np.random.default_rng(seed)
        self.noise, self.drift, self.reads = spec["write_noise"], spec["drift"], spec["read_noise"]
        self.ceiling, self.faults = spec.get("g_ceiling", math.inf), spec["faults"]

    def at_age(self, rows: Any, value: Any) -> Array:
        times = self.noise.get("times")
        if times is None:
            return np.asarray(value(rows))
        first, last = (np.asarray(value(part)) for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :]))
        share = min(1.0, max(0.0, math.log(self.age / times[0]) / math.log(times[1] / times[0])))
        return (1 - share) * first + share * last

    def std(self, g: Array) -> Array:
        n, x = self.noise, g / G_MAX
        if n["kind"] == "sqrt_range":
            return np.asarray(n["gamma"] * n["sigma"] * np.sqrt((g - self.low).clip(0) * self.span))
        if n["kind"] == "proportional":
            return np.asarray(n["sigma"] * g)
        if n["kind"] == "uniform":
            return np.full_like(g, n["sigma"] * self.span)
        if n["kind"] == "polynomial":
            return np.asarray(G_MAX / n["g_ref"] * (n["c0"] + n["c1"] * x + n["c2"] * x**2))
        if n["kind"] == "table":
            return np.interp(g, n["targets"], n["std"])
        piece = np.searchsorted(np.array(n["borders"]) / n["g_ref"], x, side="right")

        def by_piece(rows: Any) -> Array:
            values = [sum(c * x**k for k, c in enumerate(row)) for row in rows]
            return np.choose(piece, [np.broadcast_to(v, g.shape) for v in values]) * G_MAX / n["g_ref"]

        return self.at_age(n["coefficients"], by_piece)

    def written(self, g: Array) -> Array:
        eps = self.rng.standard_normal(g.shape)
        if self.noise["kind"] == "none":
            return g.copy()
        if self.noise["kind"] == "lognormal":
            held = g * np.exp(self.noise["sigma"] * eps)
        else:
            table = "mean" in self.noise
            held = (np.interp(g, self.noise["targets"], self.noise["mean"]) if table else g) + self.std(g) * eps
        return held.clip(0, self.ceiling)

    def verified(self, g: Array, writes: int, tolerance: float) -> Array:
        held = self.written(g)
        for _ in range(writes - 1):
            held = np.where(np.abs(held - g) > tolerance * self.span, self.written(g), held)
        return held

    def drifted(self, g: Array, target: Array) -> Array:
        d, eps, x = self.drift, self.rng.standard_normal(g.shape), target / G_MAX
        if d["kind"] == "exponential":
            rest, tau = d.get("g_rest", self.low), d["tau"] * np.exp(d["tau_spread"] * eps)
            return np.asarray(rest + (g - rest) * np.exp(-((self.age / tau) ** d.get("stretch", 1.0))))
        if d["kind"] == "none" or self.age <= d["t0"]:
            return g
        if d["kind"] == "power_law":
            nu = (d["nu"] + d["nu_std"] * eps).clip(0)
        elif d["kind"] == "power_law_table":
            nu = np.abs(np.interp(x, d["g"], d["nu"]) + np.interp(x, d["g"], d["nu_std"]) * eps)
        else:
            log = np.log(x.clip(1e-12))
            mu = (d["mu_slope"] * log + d["mu_offset"]).clip(d["mu_min"], d["mu_max"])
            nu = np.abs(mu + (d["s_slope"] * log + d["s_offset"]).clip(d["s_min"], d["s_max"]) * eps)
        return np.asarray(g * (self.age / d["t0"]) ** -nu)

    def read(self, g: Array, before: Array) -> Array:
        r, x = self.reads, before / G_MAX
        if r["kind"] == "none":
            return g
        if r["kind"] == "proportional":
            std = r["sigma"] * np.abs(g)
        elif r["kind"] == "uniform":
            std = np.full_like(g, r["sigma"] * self.span)
        else:
            flicker = r["kind"] == "pcm_flicker"
            q = (r["q_scale"] / x.clip(1e-12) ** r["q_power"]).clip(max=r["q_max"]) if flicker else None
            q = np.interp(x.clip(0, 1), r["g"], r["q"]) if q is None else q
            std = np.abs(g) * q * math.sqrt(max(0.0, math.log((self.age + r["t_read"]) / (2 * r["t_read"]))))
        return np.asarray(g + std * self.rng.standard_normal(g.shape))

    def product(self, levels: list[float], slices: int, verify: dict[str, Any] | None, amplitude: bool) -> Array:
        """Results of the product of CODES and INPUTS, as the sum of all devices, slices and input cycles."""
        total, radix, step = np.zeros(DRAWS), len(levels), self.span / (len(levels) - 1)
        bits = [(-8 if z == 3 else 2**z, np.array([(x % 16) >> z & 1 for x in INPUTS], float)) for z in range(4)]
        for sign in (1, -1):
            for s in range(slices):
                digits = [max(0, sign * code) // radix**s % radix for code in CODES]
                target = np.tile([levels[d] for d in digits], (DRAWS, 1))
                held = self.written(target) if verify is None else self.verified(target, **verify)
                held, before = self.drifted(held, target), held
                u = self.rng.random(held.shape)
                low, high = self.faults["stuck_at_g_min"], self.faults["stuck_at_g_max"]
                for where, g in ((u < low, self.low), ((u >= low) & (u < low + high), G_MAX)):
                    held, before = np.where(where, g, held), np.where(where, g, before)
                for weight, applied in [(1, np.array(INPUTS, float))] if amplitude else bits:
                    total += sign * radix**s * weight * (((self.read(held, before) - self.low) / step) @ applied)
        return total


def check(seed: int, low: float = 0.0, levels: Any = 4, *, verify: Any = None, age: float = 0.0,
          amplitude: bool = False, rates: tuple[float, float] = (0.0, 0.0), **fields: Any) -> None:  # fmt: skip
    listed = levels if isinstance(levels, list) else [low + (G_MAX - low) * n / (levels - 1) for n in range(levels)]
    faults = {"kind": "stuck_at", "stuck_at_g_min": rates[0], "stuck_at_g_max": rates[1]}
    spec = {"write_noise": NONE, "drift": NONE, "read_noise": NONE, "faults": faults} | fields
    uneven = {"level_conductances": listed} if isinstance(levels, list) else {}
    hardware = array(
        rows=4, columns=1, cell=Cell.model_validate({"g_min": low, "g_max": G_MAX, **spec, **uneven}), bits=6,
        bits_per_cell=(len(listed) - 1).bit_length(), levels=len(listed), age=age, write_verify=verify,
        subtract="analog" if amplitude else "digital",
        inputs={"kind": "amplitude" if amplitude else "bit_serial", "bits": 4},
    )  # fmt: skip
    expected = Devices(low, spec, age, seed).product(listed, hardware.slices(), verify, amplitude)
    codes = torch.tensor(CODES, dtype=torch.float64).expand(DRAWS, 1, -1)
    programmed = write(codes, hardware, stream=seed)
    x = torch.tensor([INPUTS], dtype=torch.float64).expand(DRAWS, 1, -1)
    levels_of = ("cell", "array") if spec["read_noise"] is not NONE else ("cell", "array", "noise")
    for level in levels_of:
        y = mvm(x, programmed, level=level, x_range=TOP, stream=seed + 1)  # type: ignore[arg-type]
        same(expected, y[:, 0, 0].numpy() / float(programmed.unit.flatten()[0]))


def same(a: Array, b: Array) -> None:
    """Both samples have the same mean, variance and distribution."""
    a, b = a.round(9), b.round(9)
    if a.std() == 0:
        assert np.array_equal(a, b)
        return
    assert abs(a.mean() - b.mean()) <= 4.9 * math.sqrt((a.var() + b.var()) / DRAWS)
    spread = sum(float(((s - s.mean()) ** 2).var()) for s in (a, b)) / DRAWS
    assert abs(a.var() - b.var()) <= 4.9 * math.sqrt(spread)
    both = np.concatenate([a, b])
    distance = np.abs(np.subtract(*(np.searchsorted(np.sort(s), both, side="right") for s in (a, b)))).max() / DRAWS
    assert distance <= math.sqrt(-math.log(1e-6 / 2) / 2) * math.sqrt(2 / DRAWS)


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize(("low", "levels", "ceiling"), [(0.0, 3, None), (2 * uS, 6, 31 * uS)])
def test_write_noise(kind: str, low: float, levels: int, ceiling: float | None) -> None:
    check(11, low, levels, write_noise=WRITES[kind], **({} if ceiling is None else {"g_ceiling": ceiling}))


@pytest.mark.parametrize("kind", [kind for kind in WRITES if kind != "none"])
def test_verified_writes_into_uneven_levels(kind: str) -> None:
    levels = [1 * uS, 2 * uS, 7 * uS, 19 * uS, G_MAX]
    check(23, 1 * uS, levels, write_noise=WRITES[kind], verify={"writes": 4, "tolerance": 0.03})


@pytest.mark.parametrize("age", [0.5, 37.0, 700.0])
def test_coefficients_over_time(age: float) -> None:
    check(31, 0.0, 12, write_noise=AGED_PIECES, age=age)


@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize("read", READS)
def test_drift_and_read_noise(drift: str, read: str) -> None:
    at_zero = read in ("uniform", "flicker")
    check(
        41, 0.0 if at_zero else 2 * uS, 5, write_noise=WRITES["sqrt_range" if at_zero else "uniform"],
        drift=DRIFTS[drift], read_noise=READS[read], age=60.0, amplitude=at_zero,
    )  # fmt: skip


def test_faults_hold_whatever_was_written_and_however_it_drifts() -> None:
    check(
        53, 1 * uS, write_noise=WRITES["proportional"], drift=DRIFTS["power_law"], read_noise=READS["flicker"],
        age=50.0, rates=(0.1, 0.05),
    )  # fmt: skip
