"""What a memory cell is: its conductance range and its non-idealities, one small frozen type per choice.

Symbols: G conductance, eps a fresh standard normal, r = G_max / G_min.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from ohmformer.quantities import Deviation, Endurance, Fraction, Joules, Real, Seconds, Share, Siemens
from ohmformer.schema import Spec

PositiveSiemens = Annotated[Siemens, Field(gt=0)]
PositiveSeconds = Annotated[Seconds, Field(gt=0)]


class NoNoise(Spec):
    """An ideal write or read."""

    kind: Literal["none"] = "none"


class SqrtRange(Spec):
    """G' = G + gamma sigma sqrt((G - G_min)(G_max - G_min)) eps: exactly zero at G_min.

    ClipFormer (TCAD 2024), after TxSim (2021); CrossSim's SQRTFIXED. Only the product gamma sigma matters.
    """

    kind: Literal["sqrt_range"] = "sqrt_range"
    gamma: Fraction = 1.0
    sigma: Deviation


class Proportional(Spec):
    """G' = G (1 + sigma eps)."""

    kind: Literal["proportional"] = "proportional"
    sigma: Deviation


class Uniform(Spec):
    """G' = G + sigma (G_max - G_min) eps."""

    kind: Literal["uniform"] = "uniform"
    sigma: Deviation


class Polynomial(Spec):
    """G' = G + (G_max / g_ref)(c0 + c1 g + c2 g^2) eps with g = G / G_max (Joshi et al. 2020: PCM, g_ref = 25 uS)."""

    kind: Literal["polynomial"] = "polynomial"
    g_ref: PositiveSiemens
    c0: Siemens
    c1: Siemens
    c2: Siemens

    def least(self, low: float, high: float) -> float:
        """The smallest c0 + c1 g + c2 g^2 [S] for g between low and high: at an end, or where the slope is zero."""
        turn = -self.c1 / (2 * self.c2) if self.c2 else low
        places = (low, high, turn) if low < turn < high else (low, high)
        return min(self.c0 + self.c1 * g + self.c2 * g * g for g in places)


class Lognormal(Spec):
    """G' = G exp(sigma eps): the high-resistance state of RRAM."""

    kind: Literal["lognormal"] = "lognormal"
    sigma: Annotated[Deviation, Field(le=5)]


class PcmFlicker(Spec):
    """1/f read noise of PCM (Nandakumar 2019, Joshi 2020): grows with the time since programming.

    G' = G + |G| q sqrt(ln((t + t_read) / (2 t_read))) eps, with q = min(q_max, q_scale / g^q_power), where g is the
    conductance just after programming over G_max, and t the time since then.
    """

    kind: Literal["pcm_flicker"] = "pcm_flicker"
    q_scale: Deviation
    q_power: Annotated[Deviation, Field(le=3)]
    q_max: Deviation
    t_read: PositiveSeconds


WriteNoise = Annotated[
    NoNoise | SqrtRange | Proportional | Uniform | Polynomial | Lognormal, Field(discriminator="kind")
]
ReadNoise = Annotated[NoNoise | Proportional | Uniform | PcmFlicker, Field(discriminator="kind")]


class NoDrift(Spec):
    """Conductance that stays."""

    kind: Literal["none"] = "none"


class PowerLaw(Spec):
    """G(t) = G' (t / t0)^-nu for t >= t0; nu of each cell is normal (mean nu, deviation nu_std), at least 0."""

    kind: Literal["power_law"] = "power_law"
    t0: PositiveSeconds
    nu: Deviation
    nu_std: Deviation = 0.0


class PcmDrift(Spec):
    """Power law whose exponent depends on the conductance (Joshi et al. 2020).

    nu = |mu + s eps|, mu = clamp(mu_slope ln g + mu_offset, mu_min, mu_max), s likewise, g = target G / G_max.
    """

    kind: Literal["pcm_drift"] = "pcm_drift"
    t0: PositiveSeconds
    mu_slope: Real
    mu_offset: Real
    mu_min: Deviation
    mu_max: Deviation
    s_slope: Real
    s_offset: Real
    s_min: Deviation
    s_max: Deviation

    @model_validator(mode="after")
    def _order(self) -> PcmDrift:
        for name, least, most in (("mu", self.mu_min, self.mu_max), ("s", self.s_min, self.s_max)):
            if least > most:
                raise ValueError(f"{name}_min = {least:g} is above {name}_max = {most:g}; exchange or correct them")
        return self


Drift = Annotated[NoDrift | PowerLaw | PcmDrift, Field(discriminator="kind")]


class Faults(Spec):
    """Cells stuck at G_min or at G_max, whatever is written to them, with these probabilities."""

    stuck_at_g_min: Share = 0.0
    stuck_at_g_max: Share = 0.0

    @model_validator(mode="after")
    def _sum(self) -> Faults:
        if self.stuck_at_g_min + self.stuck_at_g_max > 1:
            raise ValueError("stuck_at_g_min + stuck_at_g_max is above 1; lower one of them")
        return self


Writes = Annotated[int, Field(ge=1, le=100_000)]


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class WriteVerify(Spec):
    """Writes that are read back: a cell that missed its target is written again.

    A write is accepted where |G' - G| <= tolerance (G_max - G_min); otherwise it is repeated, with noise drawn anew,
    until the cell has had `writes` of them; what the last one gave stays. Reading back is exact. One number of writes
    holds for all slices of a value; a list has one for each slice, the least significant first.
    """

    writes: Annotated[Writes | Annotated[tuple[Writes, ...], Field(min_length=1)], BeforeValidator(_tuple)]
    tolerance: Annotated[Fraction, Field(gt=0)]

    def of_slice(self, index: int) -> int:
        """The most writes of a cell of a slice, counted from the least significant one."""
        return self.writes if isinstance(self.writes, int) else self.writes[index]


class Cell(Spec):
    """One memristive cell.

    Written conductances are clamped to G >= 0, and to `g_ceiling` where the cell gives one.
    """

    catalog_kind: ClassVar[str] = "cell"
    cost_fields: ClassVar[tuple[str, ...]] = ("write_time", "write_energy", "write_pulses", "endurance")

    g_min: Annotated[Siemens, Field(ge=0)]
    g_max: PositiveSiemens
    g_ceiling: PositiveSiemens | None = None
    levels: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """How many conductances can be told apart; None where any can."""
    write_noise: WriteNoise = NoNoise()
    read_noise: ReadNoise = NoNoise()
    drift: Drift = NoDrift()
    faults: Faults = Faults()
    write_time: PositiveSeconds | None = None
    """Time of one write, all its pulses: RESET and then SET of memristors; the cells of a row are written at once."""
    write_energy: Annotated[Joules, Field(ge=0)] | None = None
    """Energy of one write of one cell, all its pulses."""
    write_pulses: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Pulses of one write that wear the cell: two where a write is RESET and SET."""
    endurance: Endurance | None = None
    """Pulses that the cell survives; infinite where writing does not wear it."""

    @model_validator(mode="after")
    def _order(self) -> Cell:
        if self.g_min >= self.g_max:
            raise ValueError(f"g_min = {self.g_min:g} S is not below g_max = {self.g_max:g} S; correct one of them")
        if self.g_ceiling is not None and self.g_ceiling < self.g_max:
            raise ValueError("g_ceiling is below g_max; raise it or leave it out")
        self._check_deviation()
        return self

    def _check_deviation(self) -> None:
        """No write has a standard deviation below zero."""
        noise = self.write_noise
        if not isinstance(noise, Polynomial):
            return
        least = noise.least(self.g_min / self.g_max, 1.0)
        if least < -1e-9 * max(abs(noise.c0), abs(noise.c1), abs(noise.c2)):  # what rounding leaves of a zero passes
            raise ValueError(
                f"write_noise: c0 + c1 g + c2 g^2 falls to {least:.3g} S between g_min and g_max, and no deviation is "
                "below zero; correct c0, c1 and c2"
            )

    @property
    def on_off_ratio(self) -> float:
        """r = G_max / G_min; infinite for g_min = 0."""
        return self.g_max / self.g_min if self.g_min else float("inf")
