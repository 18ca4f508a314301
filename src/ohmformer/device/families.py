"""The families of non-idealities of a cell: write noise, read noise, drift and faults, and what a kind of each defines.

A kind is a frozen specification with methods on tensors: conductances in siemens, of any shape, and standard normals of
the same shape. The methods draw nothing. They use only methods of the tensors, so this module does not import torch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol, Self

from pydantic import Field

from ohmformer.errors import BadInput
from ohmformer.quantities import Seconds, Siemens
from ohmformer.registry import Family, called

if TYPE_CHECKING:
    from torch import Tensor

    from ohmformer.device.closed_forms import Parts

PositiveSeconds = Annotated[Seconds, Field(gt=0)]
PositiveSiemens = Annotated[Siemens, Field(gt=0)]


class CellRange(Protocol):
    """What a kind may read from its cell: conductances [S]; `g_ceiling` is the upper clamp of writes, or None."""

    @property
    def g_min(self) -> float: ...

    @property
    def g_max(self) -> float: ...

    @property
    def g_ceiling(self) -> float | None: ...


class ScalableKind(Family):
    """A kind that may say how it gets stronger or weaker."""

    strength: ClassVar[tuple[str, ...]] = ()
    """Fields that together scale it: with all of them times x, the noise (of drift the exponent of a power law) is
    times x."""

    kind: str

    def scaled(self, factor: float) -> Self:
        """This kind times `factor`.

        Raises:
            BadInput: the kind has no `strength`.
        """
        if not self.strength:
            family = self.family.replace("_", " ")
            raise BadInput(f"{family} {self.kind!r} does not say how it is scaled; give its class a `strength`")
        return self.model_copy(update={name: factor * getattr(self, name) for name in self.strength})

    @classmethod
    def check_class(cls) -> None:
        """Check that `strength` names fields of the class.

        Raises:
            BadInput: a name in it is not a field.
        """
        for name in cls.strength:
            if name not in cls.model_fields:
                raise BadInput(f"register({cls.__name__}): strength names {name!r}, which is not a field; correct it")


class WriteNoise(ScalableKind):
    """The error of one write.

    Any continuous distribution is possible: `after_write` transforms one standard normal into it. Closed forms are
    optional; a feature that needs a missing one is refused with its name. `held_moments`, bias-corrected codes and
    `calibrate` need `moments`; write-verify needs `eps_of_error` and `parts`. A kind of Gaussian noise derives from
    `GaussianWriteNoise`, which has them all.
    """

    family: ClassVar[str] = "write_noise"

    @abstractmethod
    def after_write(self, g: Tensor, cell: CellRange, eps: Tensor) -> Tensor:
        """The conductance [S] after one write, before the clamp: a new tensor.

        For every target it must not fall as eps rises.

        Args:
            g: targets [S].
            cell: the cell.
            eps: standard normals of the same shape.
        """

    @abstractmethod
    def write_std(self, g: Tensor, cell: CellRange) -> Tensor:
        """Standard deviation [S] of one write of targets g [S], before the clamp: a new tensor."""

    @property
    def silent(self) -> bool:
        """True if every write is exact."""
        return bool(self.strength) and all(getattr(self, name) == 0 for name in self.strength)

    def silent_at_g_min(self, cell: CellRange) -> bool:
        """True if writing G_min is exact, so that the unused half of a pair adds no write noise."""
        return self.silent

    def unsuited(self, cell: CellRange) -> str:
        """Say why this noise does not suit a cell, as fault and remedy; empty if it suits."""
        return ""

    def at_age(self, age: float) -> WriteNoise:
        """Return the noise of cells that are read `age` seconds after they were written.

        A kind whose parameters were measured at several times overrides this. All other methods hold for cells that are
        read just after they were written, or for the age at which this method has fixed the noise.

        Raises:
            BadInput: the noise of this age is not known.
        """
        return self

    def moments(self, g: Tensor, cell: CellRange) -> tuple[Tensor, Tensor]:
        """Mean error [S] and variance [S^2] of one write of targets g [S], with the clamp."""
        raise BadInput(self.missing_forms("moments"))

    def eps_of_error(self, error: Tensor | float, g: Tensor, cell: CellRange) -> Tensor:
        """The standard normal for which a write of g [S] gives g + error [S]: the inverse of `after_write`.

        NaN where a write is exact.
        """
        raise BadInput(self.missing_forms("eps_of_error"))

    def parts(self, g: Tensor, cell: CellRange, a: Tensor, b: Tensor) -> Parts:
        """First and second moment of the clamped error over an interval of eps, see `closed_forms.Parts`.

        Args:
            g: targets [S].
            cell: the cell.
            a: lower ends of the intervals.
            b: upper ends.
        """
        raise BadInput(self.missing_forms("parts"))

    def missing_forms(self, *forms: str) -> str:
        """A message that names those of the given closed forms (methods) that the kind lacks; empty if it has all."""
        cls = type(self)
        missing = [name for name in forms if getattr(cls, name) is getattr(WriteNoise, name)]
        if not missing:
            return ""
        names = " and ".join(f"`{name}`" for name in missing)
        return f"write noise {self.kind!r} has no closed form for it; give {cls.__name__} {names}, or take another kind"


class GaussianWriteNoise(WriteNoise):
    """G' = m(G) + s(G) eps, clamped.

    A kind defines s, its `write_std`. The mean m is the target G, unless the kind defines `write_mean`. All closed
    forms follow from both.
    """

    def write_mean(self, g: Tensor, cell: CellRange) -> Tensor:
        """Mean conductance [S] after one write of targets g [S], before the clamp."""
        return g

    @property
    def mean_is_target(self) -> bool:
        """True if the mean before the clamp is the target."""
        return type(self).write_mean is GaussianWriteNoise.write_mean

    @property
    def silent(self) -> bool:
        """True if every write is exact."""
        return super().silent and self.mean_is_target

    def after_write(self, g: Tensor, cell: CellRange, eps: Tensor) -> Tensor:
        """m + s eps."""
        return (self.write_std(g, cell) * eps).add_(self.write_mean(g, cell))

    def silent_at_g_min(self, cell: CellRange) -> bool:
        """True if s(G_min) = 0 and m(G_min) = G_min."""
        g = _as_tensor(cell.g_min)
        std = called(self, "write_std", g, cell)
        try:
            exact = bool((std == 0).all())
            return exact and (self.mean_is_target or bool((called(self, "write_mean", g, cell) == g).all()))
        except (AttributeError, RuntimeError):  # no tensor of values, which `device.check` refuses by name
            return False

    def moments(self, g: Tensor, cell: CellRange) -> tuple[Tensor, Tensor]:
        """Moments of a censored normal."""
        from ohmformer.device.closed_forms import censored_normal

        mean = self.write_mean(g, cell)
        shift, variance = censored_normal(mean, self.write_std(g, cell), cell.g_ceiling)
        return shift if mean is g else shift + (mean - g), variance

    def eps_of_error(self, error: Tensor | float, g: Tensor, cell: CellRange) -> Tensor:
        """(G + error - m) / s."""
        mean = self.write_mean(g, cell)
        return (error if mean is g else error - (mean - g)) / self.write_std(g, cell)

    def parts(self, g: Tensor, cell: CellRange, a: Tensor, b: Tensor) -> Parts:
        """Integrals of a clamped normal."""
        from ohmformer.device.closed_forms import normal_parts

        ceiling, mean = math.inf if cell.g_ceiling is None else cell.g_ceiling, self.write_mean(g, cell)
        return normal_parts(g, self.write_std(g, cell), ceiling, a, b, offset=None if mean is g else mean - g)


class ReadNoise(ScalableKind):
    """The error that one read adds to a conductance.

    It is Gaussian and not clamped, since the errors of all cells behind one conversion are summed as one Gaussian.
    """

    family: ClassVar[str] = "read_noise"
    remembers_writing: ClassVar[bool] = False
    """True if the noise depends on the conductance just after programming, which is then stored, too."""
    takes_ages: ClassVar[bool] = False
    """True if `age` may be a tensor in float64 that broadcasts against conductances: an age of each cell."""

    @abstractmethod
    def read_std(self, g: Tensor, cell: CellRange, *, age: float, written: Tensor | None) -> Tensor:
        """Standard deviation [S] of one read: a new tensor.

        Args:
            g: present conductances [S].
            cell: the cell.
            age: time since programming [s].
            written: conductances just after programming [S], if they have drifted since and `remembers_writing` is
                true; otherwise None.
        """

    @property
    def exact(self) -> bool:
        """True if every read is exact."""
        return False


class Drift(ScalableKind):
    """The change of a conductance over time after it was written. Drift has no closed form here."""

    family: ClassVar[str] = "drift"
    takes_ages: ClassVar[bool] = False
    """True if `age` of `drifted` may be a tensor in float64 that broadcasts against conductances: an age of each cell.
    It then may hold ages at which `acts` is false."""

    @abstractmethod
    def acts(self, age: float) -> bool:
        """True if conductances change at all within `age` seconds."""

    @abstractmethod
    def drifted(self, g: Tensor, target: Tensor, cell: CellRange, eps: Tensor, *, age: float) -> Tensor:
        """Conductances [S] at time `age`, for which `acts(age)` is true: a new tensor.

        Args:
            g: conductances just after writing [S].
            target: conductances that were to be written [S].
            cell: the cell.
            eps: standard normals of the same shape, one for each cell, which do not change over time.
            age: time since programming [s].
        """

    def unsuited(self, cell: CellRange) -> str:
        """Say why this drift does not suit a cell, as fault and remedy; empty if it suits."""
        return ""

    def time_to_lose(self, share: float) -> float:
        """Time after which a cell with eps = 0 has lost a share of all that drift takes [s]; NaN if cells differ."""
        return math.nan

    def common_factor(self, age: Tensor) -> Tensor | None:
        """The factor by which drift multiplies the difference of any two cells; None if cells differ in it.

        Args:
            age: times since programming [s], of any shape, in float64.
        """
        return None


class PowerLawDrift(Drift):
    """G(t) = G' (t / t0)^-nu for t >= t0. A kind defines the exponent nu of each cell."""

    takes_ages: ClassVar[bool] = True

    t0: PositiveSeconds
    """Time at which drift starts [s]."""

    @abstractmethod
    def exponent(self, target: Tensor, cell: CellRange, eps: Tensor) -> Tensor:
        """The drift exponent nu of each cell.

        Args:
            target: conductances that were to be written [S].
            cell: the cell.
            eps: standard normals of the same shape.
        """

    def acts(self, age: float) -> bool:
        """True after t0."""
        return bool(age > self.t0)

    def drifted(self, g: Tensor, target: Tensor, cell: CellRange, eps: Tensor, *, age: float) -> Tensor:
        """G' (t / t0)^-nu."""
        exponent = -self.exponent(target, cell, eps)
        return g * (exponent * (math.log(age / self.t0) if isinstance(age, (int, float)) else self._log(age, g))).exp()

    def _log(self, age: Tensor, like: Tensor) -> Tensor:
        """ln(t / t0), 0 before t0, in the dtype and on the device of `like`."""
        return (age / self.t0).clamp(min=1.0).log().to(like)


class FaultModel(Family):
    """Cells that hold a fixed conductance, whatever is written to them. A kind defines `states`; all else follows."""

    family: ClassVar[str] = "faults"
    default_kind: ClassVar[str] = "stuck_at"

    kind: str

    @abstractmethod
    def states(self) -> tuple[tuple[float, float], ...]:
        """The stuck states of a cell: for each, its share of the range (0 at G_min, 1 at G_max) and its probability."""

    def conductances(self, cell: CellRange) -> tuple[tuple[float, float], ...]:
        """The stuck states of a cell: for each, its conductance [S] and its probability."""
        return tuple((_at_share(x, cell), probability) for x, probability in self.states())

    def intervals(self) -> tuple[tuple[float, float, float], ...]:
        """The stuck states as intervals of a uniform number: for each, its share of the range, and its two ends."""
        found, low = [], 0.0
        for x, probability in self.states():
            found.append((x, low, low + probability))
            low += probability
        return tuple(found)

    def stuck_intervals(self, cell: CellRange) -> tuple[tuple[float, float, float], ...]:
        """`intervals` with conductances [S] in place of shares of the range."""
        return tuple((_at_share(x, cell), low, high) for x, low, high in self.intervals())


def _at_share(x: float, cell: CellRange) -> float:
    """The conductance at a share of the range [S]."""
    return cell.g_max if x == 1 else cell.g_min + x * (cell.g_max - cell.g_min)


def _as_tensor(g: float) -> Tensor:
    """A conductance as a tensor [1] in float64."""
    import torch

    return torch.tensor([g], dtype=torch.float64)
