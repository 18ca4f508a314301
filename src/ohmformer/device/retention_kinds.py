"""Kinds of drift and read noise of measured cells: exponential decay, and parameters in tables over the conductance.

`families.py` defines what the methods of a kind take and return. Symbols: G target conductance [S], G' conductance
after a write [S], t time since the write [s], eps a standard normal number of each cell.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ohmformer import units
from ohmformer.device.families import CellRange, Drift, PositiveSeconds, PowerLawDrift, ReadNoise
from ohmformer.device.flicker import flicker_growth
from ohmformer.device.interpolation import linear
from ohmformer.device.measured_kinds import check_rising
from ohmformer.quantities import Deviation, ElectronVolts, Kelvins, Listed, Share, Siemens
from ohmformer.registry import register

if TYPE_CHECKING:
    from torch import Tensor

BOLTZMANN = 8.617333262e-5
"""Boltzmann's constant [eV/K] (CODATA 2018)."""
PLAUSIBLE = (1e-15, 1e18)
"""Shortest and longest time constant that a temperature may give [s]."""
Shares = Annotated[tuple[Share, ...], Listed, Field(min_length=2)]
"""Conductances as shares of G_max, rising from 0 to 1."""
Deviations = Annotated[tuple[Deviation, ...], Listed]
"""One dimensionless value for each share."""


def _check_table(shares: tuple[float, ...], **columns: tuple[float, ...]) -> None:
    """Refuse a table that does not span 0 to 1, or whose columns differ in length."""
    check_rising("g", shares)
    if (shares[0], shares[-1]) != (0.0, 1.0):
        raise ValueError("g must begin with 0 and end with 1; add the values at G = 0 and at G_max")
    for name, values in columns.items():
        if len(values) != len(shares):
            raise ValueError(f"{name} has {len(values)} values for {len(shares)} of g; give one for each")


@register
class Exponential(Drift):
    """G(t) = G_rest + (G' - G_rest) exp(-(t / tau)^stretch): a charge that leaks away, as in gain cells."""

    takes_ages: ClassVar[bool] = True

    kind: Literal["exponential"] = "exponential"
    tau: PositiveSeconds
    """Time constant [s]: the median over cells."""
    tau_spread: Deviation = 0.0
    """Standard deviation of ln tau from cell to cell."""
    stretch: Annotated[Deviation, Field(gt=0)] = 1.0
    """Exponent of t / tau, dimensionless; 1 for an exponential decay."""
    g_rest: Annotated[Siemens, Field(ge=0)] | None = None
    """Conductance in the end [S]; None for G_min."""
    activation_energy: Annotated[ElectronVolts, Field(gt=0)] | None = None
    """Activation energy of the leak [eV], by which tau follows the temperature (Arrhenius); None for a constant tau."""
    tau_at: Annotated[Kelvins, Field(gt=0)] | None = None
    """Temperature at which tau is as stated [K]."""
    temperature: Annotated[Kelvins, Field(gt=0)] | None = None
    """Temperature of the cells [K]."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        thermal = {name: getattr(self, name) for name in ("activation_energy", "tau_at", "temperature")}
        missing = [name for name, value in thermal.items() if value is None]
        if 0 < len(missing) < len(thermal):
            given = next(name for name, value in thermal.items() if value is not None)
            raise ValueError(
                f"{given} is given without {' and '.join(missing)}; give all of {', '.join(thermal)}, or none of them"
            )
        if not missing and not PLAUSIBLE[0] <= self.tau_now <= PLAUSIBLE[1]:
            raise ValueError(
                f"activation_energy, tau_at and temperature make tau {self.tau_now:.3g} s; correct them, or tau"
            )
        return self

    @property
    def tau_now(self) -> float:
        """The time constant at the temperature of the cells [s]: tau exp(E_a / k (1 / T - 1 / T_ref))."""
        if self.activation_energy is None or self.temperature is None or self.tau_at is None:
            return self.tau
        exponent = self.activation_energy / BOLTZMANN * (1 / self.temperature - 1 / self.tau_at)
        return self.tau * math.exp(min(700.0, max(-700.0, exponent)))

    def _decay(self, age: Any) -> Any:
        """(t / tau)^stretch, at most 1e38, which single precision still holds; `age` is a number or a tensor."""
        ratio = age / self.tau_now
        if not isinstance(ratio, (int, float)):
            return (ratio**self.stretch).clamp(max=1e38)
        return ratio**self.stretch if self.stretch * math.log10(ratio) < 38 else 1e38

    def unsuited(self, cell: CellRange) -> str:
        """A conductance in the end that the cell does not reach."""
        top = cell.g_max if cell.g_ceiling is None else cell.g_ceiling
        if self.g_rest is None or self.g_rest <= top:
            return ""
        name = "g_max" if cell.g_ceiling is None else "g_ceiling"
        return f"g_rest = {units.show(self.g_rest, 'S')} is above {name} = {units.show(top, 'S')}; correct one of them"

    def acts(self, age: float) -> bool:
        """True after the write."""
        return age > 0

    def drifted(self, g: Tensor, target: Tensor, cell: CellRange, eps: Tensor, *, age: float) -> Tensor:
        """G_rest + (G' - G_rest) exp(-(t / tau)^stretch), with tau = median exp(tau_spread eps) at the temperature."""
        rest = cell.g_min if self.g_rest is None else self.g_rest
        passed = -self._decay(age)
        passed = passed if isinstance(passed, (int, float)) else passed.to(g)
        exponent = (eps * (-self.stretch * self.tau_spread)).exp_().mul_(passed)
        return exponent.exp_().mul_(g - rest).add_(rest)

    def time_to_lose(self, share: float) -> float:
        """tau (-ln(1 - share))^(1 / stretch), at the temperature of the cells."""
        return float(self.tau_now * (-math.log1p(-share)) ** (1 / self.stretch))

    def common_factor(self, age: Tensor) -> Tensor | None:
        """exp(-(t / tau)^stretch) if all cells have the same time constant."""
        return None if self.tau_spread else (-self._decay(age)).exp()


@register
class PowerLawTable(PowerLawDrift):
    """G(t) = G' (t / t0)^-nu for t >= t0, nu = |m + s eps|: m and s are linear between values given over G / G_max."""

    strength: ClassVar[tuple[str, ...]] = ("nu", "nu_std")

    kind: Literal["power_law_table"] = "power_law_table"
    g: Shares
    """Target conductances as shares of G_max, rising from 0 to 1."""
    nu: Deviations
    """Mean exponent m at each of them."""
    nu_std: Deviations
    """Standard deviation s of the exponent from cell to cell at each of them."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _check_table(self.g, nu=self.nu, nu_std=self.nu_std)
        return self

    def scaled(self, factor: float) -> Self:
        """This kind with all exponents times `factor`."""
        return self.model_copy(update={name: tuple(factor * v for v in getattr(self, name)) for name in self.strength})

    def exponent(self, target: Tensor, cell: CellRange, eps: Tensor) -> Tensor:
        """|m + s eps|."""
        x = (target / cell.g_max).clamp_(0.0, 1.0)
        return linear(x, self.g, self.nu_std).mul_(eps).add_(linear(x, self.g, self.nu)).abs_()


@register
class FlickerTable(ReadNoise):
    """1/f read noise G q sqrt(ln((t + t_read) / (2 t_read))): q is linear between values given over G' / G_max."""

    remembers_writing = True
    strength: ClassVar[tuple[str, ...]] = ("q",)
    takes_ages: ClassVar[bool] = True

    kind: Literal["flicker_table"] = "flicker_table"
    g: Shares
    """Conductances just after the write as shares of G_max, rising from 0 to 1."""
    q: Deviations
    """Dimensionless coefficient at each of them."""
    t_read: PositiveSeconds
    """Duration of a read [s]."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _check_table(self.g, q=self.q)
        return self

    def scaled(self, factor: float) -> Self:
        """This kind with all coefficients times `factor`."""
        return self.model_copy(update={"q": tuple(factor * value for value in self.q)})

    def read_std(self, g: Tensor, cell: CellRange, *, age: float, written: Tensor | None) -> Tensor:
        """|G| q sqrt(ln((t + t_read) / (2 t_read)))."""
        x = ((g if written is None else written) / cell.g_max).clamp_(0.0, 1.0)
        return linear(x, self.g, self.q).mul_(flicker_growth(age, self.t_read, g)).mul_(g.abs())
