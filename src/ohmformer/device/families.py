"""What a kind of write noise, read noise, drift or fault has to say of itself: the families that a cell chooses from.

A kind is a frozen specification whose methods take tensors: conductances in SI siemens, of any shape, and standard
normals of the same shape; nothing is drawn here. The methods use what tensors bring along, so that importing this
module imports no torch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol, Self

from pydantic import Field

from ohmformer.errors import BadInput
from ohmformer.quantities import Seconds
from ohmformer.registry import Family

if TYPE_CHECKING:
    from torch import Tensor

    from ohmformer.device.closed_forms import Parts

PositiveSeconds = Annotated[Seconds, Field(gt=0)]


class CellRange(Protocol):
    """What a kind may ask of its cell: conductances [S]; the ceiling that writes are clamped to, or None."""

    @property
    def g_min(self) -> float: ...

    @property
    def g_max(self) -> float: ...

    @property
    def g_ceiling(self) -> float | None: ...


class WriteNoise(Family):
    """How the conductance found after one write misses its target.

    Any continuous distribution can be drawn: `found` turns one standard normal into it. Closed forms are optional: what
    needs one that a kind lacks is refused by name. `moments` serves `held_moments`, codes without bias and
    `calibrate`; `normal_of` and `parts` serve write-verify. A kind whose noise is Gaussian derives from
    `GaussianWriteNoise` and has them all.
    """

    family: ClassVar[str] = "write_noise"
    strength: ClassVar[tuple[str, ...]] = ()
    """Fields that the noise grows with in proportion, all of them together."""

    kind: str

    @abstractmethod
    def found(self, g: Tensor, cell: CellRange, eps: Tensor) -> Tensor:
        """The conductance [S] after one write of targets g [S], before it is clamped: a new tensor.

        For every target it must not fall as eps rises.
        """

    @abstractmethod
    def write_std(self, g: Tensor, cell: CellRange) -> Tensor:
        """Standard deviation [S] of a write of targets g [S], before the clamp."""

    @property
    def silent(self) -> bool:
        """True if writes are exact everywhere."""
        return bool(self.strength) and all(getattr(self, name) == 0 for name in self.strength)

    def silent_at_g_min(self, cell: CellRange) -> bool:
        """True if a cell written to G_min ends exactly there, so that the unused half of a pair adds no write noise."""
        return self.silent

    def scaled(self, factor: float) -> Self:
        """The same with `factor` times the noise.

        Raises:
            BadInput: the kind does not say what it grows with.
        """
        if not self.strength:
            raise BadInput(f"write noise {self.kind!r} does not say how it is scaled; give its class a `strength`")
        return self.model_copy(update={name: factor * getattr(self, name) for name in self.strength})

    def moments(self, g: Tensor, cell: CellRange) -> tuple[Tensor, Tensor]:
        """By how much writes of targets g miss them on average [S], and their variance [S^2], the clamp included."""
        raise BadInput(self.without("moments"))

    def normal_of(self, miss: Tensor | float, g: Tensor, cell: CellRange) -> Tensor:
        """The standard normal at which a write of g gives g + miss [S]: the inverse of `found`.

        NaN where a write is exact.
        """
        raise BadInput(self.without("normal_of"))

    def parts(self, g: Tensor, cell: CellRange, a: Tensor, b: Tensor) -> Parts:
        """Of the miss d(eps), clamped: integrals of d phi and d^2 phi from a to b below the ceiling, and its eps.

        See `closed_forms.Parts`.
        """
        raise BadInput(self.without("parts"))

    def without(self, *forms: str) -> str:
        """Which of these closed forms the kind lacks, as a message; empty where it has them."""
        own = type(self)
        lacking = [name for name in forms if getattr(own, name) is getattr(WriteNoise, name)]
        if not lacking:
            return ""
        names = " and ".join(f"`{name}`" for name in lacking)
        return f"write noise {self.kind!r} has no closed form for it; give {own.__name__} {names}, or take another kind"

    @classmethod
    def check_class(cls) -> None:
        """Refuse a `strength` that names no field."""
        for name in cls.strength:
            if name not in cls.model_fields:
                raise BadInput(f"register({cls.__name__}): strength names {name!r}, which is no field; correct it")


class GaussianWriteNoise(WriteNoise):
    """G' = G + s(G) eps, clamped: a kind says s, its `write_std`, and all closed forms follow."""

    def found(self, g: Tensor, cell: CellRange, eps: Tensor) -> Tensor:
        """G + s eps."""
        return self.write_std(g, cell) * eps + g

    def silent_at_g_min(self, cell: CellRange) -> bool:
        """True if s(G_min) = 0."""
        return bool((self.write_std(_level(cell.g_min), cell) == 0).all())

    def moments(self, g: Tensor, cell: CellRange) -> tuple[Tensor, Tensor]:
        """Those of a normal whose tails sit on the bounds."""
        from ohmformer.device.closed_forms import censored_normal

        return censored_normal(g, self.write_std(g, cell), cell.g_ceiling)

    def normal_of(self, miss: Tensor | float, g: Tensor, cell: CellRange) -> Tensor:
        """miss / s."""
        return miss / self.write_std(g, cell)

    def parts(self, g: Tensor, cell: CellRange, a: Tensor, b: Tensor) -> Parts:
        """Those of a normal."""
        from ohmformer.device.closed_forms import normal_parts

        ceiling = math.inf if cell.g_ceiling is None else cell.g_ceiling
        return normal_parts(g, self.write_std(g, cell), ceiling, a, b)


class ReadNoise(Family):
    """What one read of a cell adds to its conductance: Gaussian, since reads behind a conversion are summed as such.

    Reads are not clamped.
    """

    family: ClassVar[str] = "read_noise"
    remembers_writing: ClassVar[bool] = False
    """True if the noise depends on the conductance just after programming, which is then kept, too."""

    kind: str

    @abstractmethod
    def read_std(self, g: Tensor, cell: CellRange, *, age: float, written: Tensor | None) -> Tensor:
        """Standard deviation [S] of one read: a new tensor.

        Args:
            g: conductances now [S].
            cell: of this kind.
            age: time since programming [s].
            written: conductances just after programming [S], where they have drifted since and are remembered.
        """

    @property
    def exact(self) -> bool:
        """True if no read of any cell is noisy."""
        return False


class Drift(Family):
    """What remains of a conductance some time after it was written. There is no closed form of it."""

    family: ClassVar[str] = "drift"

    kind: str

    @abstractmethod
    def acts(self, age: float) -> bool:
        """True if conductances change at all within `age` seconds."""

    @abstractmethod
    def drifted(self, g: Tensor, target: Tensor, cell: CellRange, eps: Tensor, *, age: float) -> Tensor:
        """Conductance [S] at time `age` [s], where `acts(age)`: a new tensor.

        Args:
            g: conductances found just after writing [S].
            target: what was to be written [S].
            cell: of this kind.
            eps: one standard normal for each cell, which stays with it.
            age: time since programming [s].
        """


class PowerLawDrift(Drift):
    """G(t) = G' (t / t0)^-nu for t >= t0: a kind says the exponent nu of each cell."""

    t0: PositiveSeconds

    @abstractmethod
    def exponent(self, target: Tensor, cell: CellRange, eps: Tensor) -> Tensor:
        """Drift exponent nu of cells with these targets [S]; eps are standard normals of the same shape."""

    def acts(self, age: float) -> bool:
        """True after t0."""
        return bool(age > self.t0)

    def drifted(self, g: Tensor, target: Tensor, cell: CellRange, eps: Tensor, *, age: float) -> Tensor:
        """G' (t / t0)^-nu."""
        return g * (-self.exponent(target, cell, eps) * math.log(age / self.t0)).exp()


class FaultModel(Family):
    """Cells that hold a conductance of their own, whatever is written to them. All closed forms follow."""

    family: ClassVar[str] = "faults"
    default_kind: ClassVar[str] = "stuck_at"

    kind: str

    @abstractmethod
    def states(self) -> tuple[tuple[float, float], ...]:
        """Where a cell may be stuck: (share of the range, 0 for G_min to 1 for G_max; probability) of each state."""

    def conductances(self, cell: CellRange) -> tuple[tuple[float, float], ...]:
        """The same with conductances [S], exact at both ends."""
        span = cell.g_max - cell.g_min
        return tuple((cell.g_max if x == 1 else cell.g_min + x * span, chance) for x, chance in self.states())


def _level(g: float) -> Tensor:
    import torch

    return torch.tensor([g], dtype=torch.float64)
