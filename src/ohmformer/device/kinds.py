"""The kinds of write noise, read noise, drift and faults of this package.

`families.py` defines what the methods of a kind take and return. Symbols: G target conductance [S], G' conductance
after a write or read [S], eps a standard normal number.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ohmformer.device.families import (
    CellRange,
    Drift,
    FaultModel,
    GaussianWriteNoise,
    PositiveSeconds,
    PositiveSiemens,
    PowerLawDrift,
    ReadNoise,
    WriteNoise,
)
from ohmformer.device.flicker import flicker_growth
from ohmformer.quantities import Deviation, Fraction, Real, Share, Siemens
from ohmformer.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from ohmformer.device.closed_forms import Parts


@register
class NoNoise(GaussianWriteNoise, ReadNoise):
    """An ideal write or read."""

    takes_ages: ClassVar[bool] = True

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
        """The same: no noise."""
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

    Source: ClipFormer (TCAD 2024), after TxSim (2021); CrossSim calls it SQRTFIXED. Only the product gamma sigma
    matters.
    """

    strength: ClassVar[tuple[str, ...]] = ("gamma",)

    kind: Literal["sqrt_range"] = "sqrt_range"
    gamma: Fraction = 1.0
    """Noise strength, dimensionless."""
    sigma: Deviation
    """Relative standard deviation at gamma = 1, dimensionless."""

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
        root = x.clamp(min=1e-30).rsqrt_().mul_(x)  # sqrt(x), written so that many zeros do not slow it down
        return root.mul_(self.gamma * self.sigma * math.sqrt(cell.g_max - cell.g_min))


@register
class Proportional(GaussianWriteNoise, ReadNoise):
    """G' = G (1 + sigma eps)."""

    strength: ClassVar[tuple[str, ...]] = ("sigma",)
    takes_ages: ClassVar[bool] = True

    kind: Literal["proportional"] = "proportional"
    sigma: Deviation
    """Standard deviation as a share of G."""

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
    takes_ages: ClassVar[bool] = True

    kind: Literal["uniform"] = "uniform"
    sigma: Deviation
    """Standard deviation as a share of G_max - G_min."""

    def silent_at_g_min(self, cell: CellRange) -> bool:
        """True if sigma = 0."""
        return self.sigma == 0

    def write_std(self, g: Tensor, cell: CellRange) -> Tensor:
        """sigma (G_max - G_min)."""
        return g.new_full(g.shape, self.sigma * (cell.g_max - cell.g_min))

    def read_std(self, g: Tensor, cell: CellRange, *, age: float, written: Tensor | None) -> Tensor:
        """sigma (G_max - G_min)."""
        return g.new_full(g.shape, self.sigma * (cell.g_max - cell.g_min))


@register
class Polynomial(GaussianWriteNoise):
    """G' = G + (G_max / g_ref)(c0 + c1 g + c2 g^2) eps with g = G / G_max.

    Source: Joshi et al. 2020, for PCM with g_ref = 25 uS.
    """

    strength: ClassVar[tuple[str, ...]] = ("c0", "c1", "c2")

    kind: Literal["polynomial"] = "polynomial"
    g_ref: PositiveSiemens
    """G_max of the cells that the coefficients were fitted to [S]."""
    c0: Siemens
    """Constant coefficient [S]."""
    c1: Siemens
    """Linear coefficient [S]."""
    c2: Siemens
    """Quadratic coefficient [S]."""

    def minimum(self, low: float, high: float) -> float:
        """The smallest c0 + c1 g + c2 g^2 [S] for g from low to high: at an end, or where the derivative is zero."""
        vertex = -self.c1 / (2 * self.c2) if self.c2 else low
        candidates = (low, high, vertex) if low < vertex < high else (low, high)
        return min(self.c0 + self.c1 * g + self.c2 * g * g for g in candidates)

    def unsuited(self, cell: CellRange) -> str:
        """A standard deviation is never below zero between G_min and G_max."""
        least = self.minimum(cell.g_min / cell.g_max, 1.0)
        if least >= -1e-9 * max(abs(self.c0), abs(self.c1), abs(self.c2)):  # a zero may be off by rounding
            return ""
        return (
            f"c0 + c1 g + c2 g^2 falls to {least:.3g} S between g_min and g_max, but a standard deviation is never "
            "below zero; correct c0, c1 and c2"
        )

    def silent_at_g_min(self, cell: CellRange) -> bool:
        """Never, whatever the coefficients: each half of a pair has its own random numbers."""
        return False

    def write_std(self, g: Tensor, cell: CellRange) -> Tensor:
        """The polynomial; 0 where it is negative."""
        x = g / cell.g_max
        return (cell.g_max / self.g_ref * (self.c0 + self.c1 * x + self.c2 * x * x)).clamp(min=0.0)


@register
class Lognormal(WriteNoise):
    """G' = G exp(sigma eps), as in the high-resistance state of RRAM."""

    strength: ClassVar[tuple[str, ...]] = ("sigma",)

    kind: Literal["lognormal"] = "lognormal"
    sigma: Annotated[Deviation, Field(le=5)]
    """Standard deviation of ln G."""

    def silent_at_g_min(self, cell: CellRange) -> bool:
        """True for G_min = 0."""
        return self.sigma == 0 or cell.g_min == 0

    def after_write(self, g: Tensor, cell: CellRange, eps: Tensor) -> Tensor:
        """G exp(sigma eps)."""
        return g * (self.sigma * eps).exp()

    def write_std(self, g: Tensor, cell: CellRange) -> Tensor:
        """G sqrt(exp(sigma^2) (exp(sigma^2) - 1))."""
        return g * math.sqrt(math.exp(self.sigma**2) * math.expm1(self.sigma**2))

    def moments(self, g: Tensor, cell: CellRange) -> tuple[Tensor, Tensor]:
        """Moments of a lognormal that is clamped at the ceiling."""
        from ohmformer.device.closed_forms import capped_lognormal, censored_normal

        if self.sigma == 0:
            return censored_normal(g, self.write_std(g, cell), cell.g_ceiling)
        return capped_lognormal(g, self.sigma, cell.g_ceiling)

    def eps_of_error(self, error: Tensor | float, g: Tensor, cell: CellRange) -> Tensor:
        """ln((G + error) / G) / sigma; NaN for G = 0, which is written exactly."""
        eps: Tensor = (g + error).clamp(min=0.0).div(g).log() / self.sigma
        return eps.masked_fill(g == 0, math.nan)

    def parts(self, g: Tensor, cell: CellRange, a: Tensor, b: Tensor) -> Parts:
        """Integrals of a lognormal that is clamped at the ceiling."""
        from ohmformer.device.closed_forms import lognormal_parts

        return lognormal_parts(g, self.sigma, math.inf if cell.g_ceiling is None else cell.g_ceiling, a, b)


@register
class PcmFlicker(ReadNoise):
    """1/f read noise of PCM, which grows with the time t since programming.

    G' = G + |G| q sqrt(ln((t + t_read) / (2 t_read))) eps, q = min(q_max, q_scale / g^q_power), where g is the
    conductance just after programming over G_max. Source: Nandakumar 2019, Joshi et al. 2020.
    """

    remembers_writing: ClassVar[bool] = True
    strength: ClassVar[tuple[str, ...]] = ("q_scale", "q_max")
    takes_ages: ClassVar[bool] = True

    kind: Literal["pcm_flicker"] = "pcm_flicker"
    q_scale: Deviation
    """Coefficient of q, dimensionless."""
    q_power: Annotated[Deviation, Field(le=3)]
    """Exponent of g, dimensionless."""
    q_max: Deviation
    """Upper bound of q, dimensionless."""
    t_read: PositiveSeconds
    """Duration of a read [s]."""

    def read_std(self, g: Tensor, cell: CellRange, *, age: float, written: Tensor | None) -> Tensor:
        """|G| q sqrt(ln((t + t_read) / (2 t_read)))."""
        x = (g if written is None else written) / cell.g_max
        q = (self.q_scale / x.clamp(min=1e-12).pow(self.q_power)).clamp(max=self.q_max)
        return g.abs() * q * flicker_growth(age, self.t_read, g)


@register
class SqrtReadNoise(ReadNoise):
    """Read noise whose variance is in proportion to the conductance: G' = G + sigma sqrt(|G| G_max) eps.

    Source: aihwkit, `WeightNoiseType.PCM_READ`, whose `w_noise` is sigma.
    """

    kind: Literal["sqrt"] = "sqrt"
    sigma: Deviation
    """Standard deviation at G_max, as a share of G_max."""

    def read_std(self, g: Tensor, cell: CellRange, *, age: float, written: Tensor | None) -> Tensor:
        """sigma sqrt(|G| G_max)."""
        return (g.abs() * cell.g_max).sqrt_().mul_(self.sigma)

    @property
    def exact(self) -> bool:
        """True for sigma = 0."""
        return self.sigma == 0


@register
class NoDrift(Drift):
    """No drift."""

    takes_ages: ClassVar[bool] = True

    kind: Literal["none"] = "none"

    def scaled(self, factor: float) -> NoDrift:
        """The same: no drift."""
        return self

    def acts(self, age: float) -> bool:
        """Never."""
        return False

    def drifted(self, g: Tensor, target: Tensor, cell: CellRange, eps: Tensor, *, age: float) -> Tensor:
        """The written conductance."""
        return g


@register
class PowerLaw(PowerLawDrift):
    """G(t) = G' (t / t0)^-nu for t >= t0, where nu of each cell is a normal number, clamped to at least 0."""

    strength: ClassVar[tuple[str, ...]] = ("nu", "nu_std")

    kind: Literal["power_law"] = "power_law"
    nu: Deviation
    """Mean drift exponent."""
    nu_std: Deviation = 0.0
    """Standard deviation of the exponent from cell to cell."""

    def common_factor(self, age: Tensor) -> Tensor | None:
        """(t / t0)^-nu if all cells have the same exponent."""
        return None if self.nu_std else (self._log(age, age) * -self.nu).exp()

    def exponent(self, target: Tensor, cell: CellRange, eps: Tensor) -> Tensor:
        """nu + nu_std eps, at least 0."""
        return (self.nu + self.nu_std * eps).clamp(min=0.0)


@register
class PcmDrift(PowerLawDrift):
    """Power-law drift whose exponent depends on the target conductance.

    nu = |mu + s eps|, mu = clamp(mu_slope ln g + mu_offset, mu_min, mu_max), s = clamp(s_slope ln g + s_offset, s_min,
    s_max), g = G / G_max. All coefficients are dimensionless. Source: Joshi et al. 2020.
    """

    strength: ClassVar[tuple[str, ...]] = (
        *("mu_slope", "mu_offset", "mu_min", "mu_max", "s_slope", "s_offset", "s_min", "s_max"),
    )

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
        for name, low, high in (("mu", self.mu_min, self.mu_max), ("s", self.s_min, self.s_max)):
            if low > high:
                raise ValueError(f"{name}_min = {low:g} is above {name}_max = {high:g}; exchange or correct them")
        return self

    def exponent(self, target: Tensor, cell: CellRange, eps: Tensor) -> Tensor:
        """|mu + s eps|."""
        log_g = (target / cell.g_max).clamp(min=1e-12).log()
        mu = (self.mu_slope * log_g + self.mu_offset).clamp(self.mu_min, self.mu_max)
        s = (self.s_slope * log_g + self.s_offset).clamp(self.s_min, self.s_max)
        return (mu + s * eps).abs()


@register
class Faults(FaultModel):
    """Cells stuck at G_min or at G_max, whatever is written to them."""

    kind: Literal["stuck_at"] = "stuck_at"
    stuck_at_g_min: Share = 0.0
    """Probability that a cell is stuck at G_min."""
    stuck_at_g_max: Share = 0.0
    """Probability that a cell is stuck at G_max."""

    @model_validator(mode="after")
    def _sum(self) -> Faults:
        if self.stuck_at_g_min + self.stuck_at_g_max > 1:
            raise ValueError("stuck_at_g_min + stuck_at_g_max is above 1; lower one of them")
        return self

    def states(self) -> tuple[tuple[float, float], ...]:
        """G_min and G_max."""
        return (0.0, self.stuck_at_g_min), (1.0, self.stuck_at_g_max)
