"""What a memory cell is: its conductance range and its non-idealities, one small frozen type per choice.

Each choice says itself what it does to conductances; `families.py` has what it is asked. Symbols: G conductance, eps a
fresh standard normal, r = G_max / G_min.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from ohmformer.device.families import (
    CellRange,
    Drift,
    FaultModel,
    GaussianWriteNoise,
    PositiveSeconds,
    PowerLawDrift,
    ReadNoise,
    WriteNoise,
)
from ohmformer.quantities import Deviation, Endurance, Fraction, Joules, Real, Share, Siemens
from ohmformer.registry import register
from ohmformer.schema import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from ohmformer.device.closed_forms import Parts

PositiveSiemens = Annotated[Siemens, Field(gt=0)]


@register
class NoNoise(GaussianWriteNoise, ReadNoise):
    """An ideal write or read."""

    kind: Literal["none"] = "none"

    @property
    def silent(self) -> bool:
        """Always."""
        return True

    @property
    def exact(self) -> bool:
        """Always."""
        return True

    def silent_at_g_min(self, cell: CellRange) -> bool:
        """Always."""
        return True

    def scaled(self, factor: float) -> NoNoise:
        """Nothing, times anything."""
        return self

    def write_std(self, g: Tensor, cell: CellRange) -> Tensor:
        """0."""
        return g.new_zeros(g.shape)

    def read_std(self, g: Tensor, cell: CellRange, *, age: float, written: Tensor | None) -> Tensor:
        """0."""
        return g.new_zeros(g.shape)


@register
class SqrtRange(GaussianWriteNoise):
    """G' = G + gamma sigma sqrt((G - G_min)(G_max - G_min)) eps: exactly zero at G_min.

    ClipFormer (TCAD 2024), after TxSim (2021); CrossSim's SQRTFIXED. Only the product gamma sigma matters.
    """

    strength: ClassVar[tuple[str, ...]] = ("gamma",)

    kind: Literal["sqrt_range"] = "sqrt_range"
    gamma: Fraction = 1.0
    sigma: Deviation

    @property
    def silent(self) -> bool:
        """True if gamma sigma = 0."""
        return self.gamma * self.sigma == 0

    def silent_at_g_min(self, cell: CellRange) -> bool:
        """Always."""
        return True

    def write_std(self, g: Tensor, cell: CellRange) -> Tensor:
        """gamma sigma sqrt((G - G_min)(G_max - G_min))."""
        x = (g - cell.g_min).clamp_(min=0.0)
        root = x.clamp(min=1e-30).rsqrt_().mul_(x)  # sqrt(x), for which many zeros are no slow case
        return root.mul_(self.gamma * self.sigma * math.sqrt(cell.g_max - cell.g_min))


@register
class Proportional(GaussianWriteNoise, ReadNoise):
    """G' = G (1 + sigma eps)."""

    strength: ClassVar[tuple[str, ...]] = ("sigma",)

    kind: Literal["proportional"] = "proportional"
    sigma: Deviation

    def silent_at_g_min(self, cell: CellRange) -> bool:
        """True for G_min = 0."""
        return self.sigma == 0 or cell.g_min == 0

    def write_std(self, g: Tensor, cell: CellRange) -> Tensor:
        """sigma G."""
        return self.sigma * g

    def read_std(self, g: Tensor, cell: CellRange, *, age: float, written: Tensor | None) -> Tensor:
        """sigma G."""
        return self.sigma * g


@register
class Uniform(GaussianWriteNoise, ReadNoise):
    """G' = G + sigma (G_max - G_min) eps."""

    strength: ClassVar[tuple[str, ...]] = ("sigma",)

    kind: Literal["uniform"] = "uniform"
    sigma: Deviation

    def silent_at_g_min(self, cell: CellRange) -> bool:
        """Only without noise."""
        return self.sigma == 0

    def write_std(self, g: Tensor, cell: CellRange) -> Tensor:
        """sigma (G_max - G_min)."""
        return g.new_full(g.shape, self.sigma * (cell.g_max - cell.g_min))

    def read_std(self, g: Tensor, cell: CellRange, *, age: float, written: Tensor | None) -> Tensor:
        """sigma (G_max - G_min)."""
        return g.new_full(g.shape, self.sigma * (cell.g_max - cell.g_min))


@register
class Polynomial(GaussianWriteNoise):
    """G' = G + (G_max / g_ref)(c0 + c1 g + c2 g^2) eps with g = G / G_max (Joshi et al. 2020: PCM, g_ref = 25 uS)."""

    strength: ClassVar[tuple[str, ...]] = ("c0", "c1", "c2")

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

    def silent_at_g_min(self, cell: CellRange) -> bool:
        """Never: both halves of a pair have numbers of their own, whatever the coefficients."""
        return False

    def write_std(self, g: Tensor, cell: CellRange) -> Tensor:
        """The polynomial, where it is positive."""
        x = g / cell.g_max
        return (cell.g_max / self.g_ref * (self.c0 + self.c1 * x + self.c2 * x * x)).clamp(min=0.0)


@register
class Lognormal(WriteNoise):
    """G' = G exp(sigma eps): the high-resistance state of RRAM."""

    strength: ClassVar[tuple[str, ...]] = ("sigma",)

    kind: Literal["lognormal"] = "lognormal"
    sigma: Annotated[Deviation, Field(le=5)]

    def silent_at_g_min(self, cell: CellRange) -> bool:
        """True for G_min = 0."""
        return self.sigma == 0 or cell.g_min == 0

    def found(self, g: Tensor, cell: CellRange, eps: Tensor) -> Tensor:
        """G exp(sigma eps)."""
        return g * (self.sigma * eps).exp()

    def write_std(self, g: Tensor, cell: CellRange) -> Tensor:
        """G sqrt(exp(sigma^2) (exp(sigma^2) - 1))."""
        return g * math.sqrt(math.exp(self.sigma**2) * math.expm1(self.sigma**2))

    def moments(self, g: Tensor, cell: CellRange) -> tuple[Tensor, Tensor]:
        """Those of a lognormal that is cut off at the ceiling."""
        from ohmformer.device.closed_forms import capped_lognormal, censored_normal

        if self.sigma == 0:
            return censored_normal(g, self.write_std(g, cell), cell.g_ceiling)
        return capped_lognormal(g, self.sigma, cell.g_ceiling)

    def normal_of(self, miss: Tensor | float, g: Tensor, cell: CellRange) -> Tensor:
        """ln((G + miss) / G) / sigma; NaN for G = 0, which stays."""
        found: Tensor = (g + miss).clamp(min=0.0).div(g).log() / self.sigma
        return found.masked_fill(g == 0, math.nan)

    def parts(self, g: Tensor, cell: CellRange, a: Tensor, b: Tensor) -> Parts:
        """Those of a lognormal."""
        from ohmformer.device.closed_forms import lognormal_parts

        return lognormal_parts(g, self.sigma, math.inf if cell.g_ceiling is None else cell.g_ceiling, a, b)


@register
class PcmFlicker(ReadNoise):
    """1/f read noise of PCM (Nandakumar 2019, Joshi 2020): grows with the time since programming.

    G' = G + |G| q sqrt(ln((t + t_read) / (2 t_read))) eps, with q = min(q_max, q_scale / g^q_power), where g is the
    conductance just after programming over G_max, and t the time since then.
    """

    remembers_writing: ClassVar[bool] = True

    kind: Literal["pcm_flicker"] = "pcm_flicker"
    q_scale: Deviation
    q_power: Annotated[Deviation, Field(le=3)]
    q_max: Deviation
    t_read: PositiveSeconds

    def read_std(self, g: Tensor, cell: CellRange, *, age: float, written: Tensor | None) -> Tensor:
        """|G| q sqrt(ln((t + t_read) / (2 t_read)))."""
        x = (g if written is None else written) / cell.g_max
        q = (self.q_scale / x.clamp(min=1e-12).pow(self.q_power)).clamp(max=self.q_max)
        growth = max(0.0, math.log((age + self.t_read) / (2 * self.t_read)))
        return g.abs() * q * math.sqrt(growth)


@register
class NoDrift(Drift):
    """Conductance that stays."""

    kind: Literal["none"] = "none"

    def acts(self, age: float) -> bool:
        """Never."""
        return False

    def drifted(self, g: Tensor, target: Tensor, cell: CellRange, eps: Tensor, *, age: float) -> Tensor:
        """What was written."""
        return g


@register
class PowerLaw(PowerLawDrift):
    """G(t) = G' (t / t0)^-nu for t >= t0; nu of each cell is normal (mean nu, deviation nu_std), at least 0."""

    kind: Literal["power_law"] = "power_law"
    nu: Deviation
    nu_std: Deviation = 0.0

    def exponent(self, target: Tensor, cell: CellRange, eps: Tensor) -> Tensor:
        """nu + nu_std eps, at least 0."""
        return (self.nu + self.nu_std * eps).clamp(min=0.0)


@register
class PcmDrift(PowerLawDrift):
    """Power law whose exponent depends on the conductance (Joshi et al. 2020).

    nu = |mu + s eps|, mu = clamp(mu_slope ln g + mu_offset, mu_min, mu_max), s likewise, g = target G / G_max.
    """

    kind: Literal["pcm_drift"] = "pcm_drift"
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

    def exponent(self, target: Tensor, cell: CellRange, eps: Tensor) -> Tensor:
        """|mu + s eps|."""
        log_g = (target / cell.g_max).clamp(min=1e-12).log()
        mu = (self.mu_slope * log_g + self.mu_offset).clamp(self.mu_min, self.mu_max)
        s = (self.s_slope * log_g + self.s_offset).clamp(self.s_min, self.s_max)
        return (mu + s * eps).abs()


@register
class Faults(FaultModel):
    """Cells stuck at G_min or at G_max, whatever is written to them, with these probabilities."""

    kind: Literal["stuck_at"] = "stuck_at"
    stuck_at_g_min: Share = 0.0
    stuck_at_g_max: Share = 0.0

    @model_validator(mode="after")
    def _sum(self) -> Faults:
        if self.stuck_at_g_min + self.stuck_at_g_max > 1:
            raise ValueError("stuck_at_g_min + stuck_at_g_max is above 1; lower one of them")
        return self

    def states(self) -> tuple[tuple[float, float], ...]:
        """G_min and G_max."""
        return (0.0, self.stuck_at_g_min), (1.0, self.stuck_at_g_max)


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
    faults: FaultModel = Faults()
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
        states = self.faults.states()
        if not all(0 <= share <= 1 and 0 <= chance <= 1 for share, chance in states) or sum(p for _, p in states) > 1:
            raise ValueError(
                f"faults: states {states} must be shares of the range, and probabilities that sum to 1 at most"
            )
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
