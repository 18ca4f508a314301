"""The family of wear with its kinds, and the faults of worn cells.

Symbols: N pulses that a cell has seen, N_63 its
endurance, P the probability that a cell is stuck by wear.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ohmformer.device.families import FaultModel
from ohmformer.quantities import Share
from ohmformer.registry import Family, refuse_former_names, register

MovingEnd = Literal["top", "bottom", "both"]
"""The end of the range that wear moves toward the other one."""
Pulses = Annotated[float, Field(gt=0, le=1e20, allow_inf_nan=False)]


class WearModel(Family):
    """What writes do to cells: some are stuck from then on, and the others reach a smaller part of their range.

    The wear counts in pulses: the writes of an array times the `write_pulses` of its cell.
    """

    family: ClassVar[str] = "wear"
    default_kind: ClassVar[str] = "weibull"
    uses_endurance: ClassVar[bool] = True
    """False if the kind does not read the `endurance` of the cell, which is then not needed."""

    kind: str

    @abstractmethod
    def stuck_share(self, pulses: float, endurance: float) -> float:
        """The probability that a cell is stuck by wear. It never falls as pulses increase.

        Args:
            pulses: pulses that the cell has seen; above 0.
            endurance: `endurance` of the cell, in pulses; infinite if it has none.
        """

    @classmethod
    def check_class(cls) -> None:
        """Refuse a class that still defines a method under a former name.

        Raises:
            BadInput: it does.
        """
        refuse_former_names(cls, {"stuck_places": "stuck_states"})

    def window(self, pulses: float) -> tuple[float, float]:
        """The part of its range that a cell still reaches, as shares of it: (0, 1) for all of it, the default."""
        return 0.0, 1.0

    def stuck_states(self, faults: FaultModel) -> tuple[tuple[float, float], ...]:
        """The conductances at which worn cells are stuck: pairs of a share of the range, and the part of these cells.

        The parts sum to 1. By default they are in proportion to the faults of the cell; empty if it has none.
        """
        states = [(x, probability) for x, probability in faults.states() if probability > 0]
        total = sum(probability for _, probability in states)
        return tuple((x, probability / total) for x, probability in states)


@register
class NoWear(WearModel):
    """Writes change nothing."""

    uses_endurance = False

    kind: Literal["none"] = "none"

    def stuck_share(self, pulses: float, endurance: float) -> float:
        """0."""
        return 0.0


@register
class Weibull(WearModel):
    """Cells are stuck with P = 1 - exp(-(N / N_63)^shape); until then the window is 1 - w log10(1 + N / n0) of theirs.

    N_63 is the `endurance` of the cell: at so many pulses 63 % of all cells are stuck.
    """

    renamed: ClassVar[dict[str, str]] = {"stuck_high": "stuck_at_g_max"}

    kind: Literal["weibull"] = "weibull"
    shape: Annotated[float, Field(ge=0.1, le=100, allow_inf_nan=False)] = 2.0
    """Shape of the Weibull distribution, dimensionless. Its default is an assumption."""
    stuck_at_g_max: Share | None = None
    """Share of the stuck cells that is stuck at G_max, the others at G_min; None for the shares of the faults."""
    w: Share | None = None
    """Share of the window that is lost for each factor of ten in N / n0."""
    n0: Pulses | None = None
    """Pulses from which on the window shrinks."""
    moves: MovingEnd = "top"
    """The end of the range that moves: `top` lowers the largest conductance, `bottom` raises the smallest one, `both`
    share the loss equally."""

    @model_validator(mode="after")
    def _complete(self) -> Weibull:
        if (self.w is None) != (self.n0 is None):
            given, missing = ("n0", "w") if self.w is None else ("w", "n0")
            raise ValueError(f"{given} is given without {missing}; give both, or leave both out for a constant window")
        return self

    def stuck_share(self, pulses: float, endurance: float) -> float:
        """1 - exp(-(N / N_63)^shape)."""
        if math.isinf(endurance):
            return 0.0
        exponent = self.shape * math.log(pulses / endurance)
        return -math.expm1(-math.exp(exponent)) if exponent < 5 else 1.0  # exp(-exp(5)) is below 1e-64

    def window(self, pulses: float) -> tuple[float, float]:
        """(0, 1 - loss), (loss, 1) or (loss / 2, 1 - loss / 2), with loss = w log10(1 + N / n0)."""
        if self.w is None or self.n0 is None:
            return 0.0, 1.0
        loss = self.w * math.log1p(pulses / self.n0) / math.log(10)
        return {"top": (0.0, 1 - loss), "bottom": (loss, 1.0), "both": (loss / 2, 1 - loss / 2)}[self.moves]

    def stuck_states(self, faults: FaultModel) -> tuple[tuple[float, float], ...]:
        """G_max for the share `stuck_at_g_max`, G_min for the others; without it the states of the faults."""
        if self.stuck_at_g_max is None:
            return super().stuck_states(faults)
        return (0.0, 1 - self.stuck_at_g_max), (1.0, self.stuck_at_g_max)


class WornFaults(FaultModel):
    """The faults of a cell, and those that wear has added; not a kind that files choose.

    Each conductance at which worn cells are stuck owns a fixed interval of the uniform numbers that the faults do not
    use. A cell is stuck there if its number lies in the first part of the interval. This part grows with P, so a cell
    that is stuck stays stuck, at the same conductance.
    """

    kind: Literal["worn"] = "worn"
    original: FaultModel
    """The faults of the cell when it was new."""
    share: float
    """P, the probability that wear has made a cell stuck that had no fault."""
    worn_states: tuple[tuple[float, float], ...]
    """What `WearModel.stuck_states` returns."""

    def states(self) -> tuple[tuple[float, float], ...]:
        """Those of the original faults, then those of wear."""
        return tuple((x, high - low) for x, low, high in self.intervals())

    def intervals(self) -> tuple[tuple[float, float, float], ...]:
        """See the class."""
        found = list(self.original.intervals())
        start = found[-1][2] if found else 0.0
        working = max(0.0, 1.0 - start)
        for x, part in self.worn_states:
            found.append((x, start, start + self.share * part * working))
            start += part * working
        return tuple(found)
