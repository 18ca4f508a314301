"""Results of trials: whether an interval is as narrow as asked, and the share of good chips. Free of torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ohmformer.study.results.part import Count, Finite, Part


class Narrowed(Part):
    """Whether chips and samples were added until the interval was as narrow as asked.

    Attributes:
        asked: half the width of the 95 % interval that was asked for.
        reached: True if the interval of the last look is as narrow.
        most_chips: the most chips that could be tried.
        most_samples: the most samples that could be scored.
    """

    asked: Finite
    reached: bool
    most_chips: Count
    most_samples: Count


class ChipYield(Part):
    """The share of chips whose value lies beyond a bound.

    Attributes:
        side: side of the bound on which good chips lie.
        bound: in the unit in which the metric is stored.
        share: share of good chips.
        ci95: its exact (Clopper-Pearson) 95 % interval, over chips.
    """

    side: Literal["above", "below"]
    bound: Finite
    share: Annotated[Finite, Field(ge=0, le=1)]
    ci95: tuple[Finite, Finite]
