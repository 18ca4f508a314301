"""The differences from software that were allowed before the measurement, and whether they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from common.curves import Curves
from common.pages import MISSING
from common.small_files import Point
from losses import COSTS, Loss, beside, is_bounded, loss
from methods import AUTO, FIRST, NOTHING, SAME, TWICE

CHIPS, PHOTOGRAPHS, WINDOWS = 5, 1500, 8
"""Fewest chips, photographs and windows of text with which a demand is judged."""

DIGITAL = 0.05
"""Largest share of digital tokens."""

Found = Mapping[str, Curves | None]


@dataclass(frozen=True)
class Demand:
    """A difference from software that is allowed.

    Attributes:
        what: model, operands and method in words.
        study: name of the study.
        method: label of the method.
        gamma: write noise.
        allowed: largest loss at the far end of the interval, in points or percent.
        up_to: True if the demand holds at every measured noise up to `gamma`.
        beside: label of the method whose difference stands beside, without being judged; empty for none.
    """

    what: str
    study: str
    method: str
    gamma: float
    allowed: float
    up_to: bool = False
    beside: str = ""

    def worst(self, found: Curves) -> tuple[Point, Loss] | None:
        """The point with the largest loss at the far end; None if the point at `gamma` is missing."""
        column = found.found.get(self.method, {})
        gammas = [gamma for gamma in column if 0 < gamma < self.gamma] if self.up_to else []
        points = [column[gamma] for gamma in (*gammas, self.gamma) if gamma in column]
        judged = [(point, lost) for point in points if (lost := loss(found, point)) is not None]
        there = bool(judged) and self.gamma in column
        return max(judged, key=lambda pair: pair[1].high) if there else None


def _vit_s() -> Iterator[Demand]:
    kv, every = "ViT-S, K and V", "ViT-S, all operands"
    for gamma, allowed in ((3, 1.5), (5, 2.0), (7, 3.0)):
        yield Demand(f"{kv}, same cells", "vit_s_kv", SAME, gamma, allowed, up_to=True)
    yield Demand(f"{kv}, twice the cells", "vit_s_kv", TWICE, 7, 1.5, up_to=True)
    for gamma, allowed in ((2, 2.0), (3.5, 3.0), (5, 5.0)):
        yield Demand(f"{every}, same cells", "vit_s_all", SAME, gamma, allowed)
    for gamma in (2, 3.5, 5):
        yield Demand(f"{every}, twice the cells", "vit_s_all", TWICE, gamma, 2.0)


def _smollm2() -> Iterator[Demand]:
    for text in ("news", "second"):
        study, words = f"smollm2_{text}", f"SmolLM2, {'news' if text == 'news' else 'editorials'}"
        for method, limits in ((SAME, (2.0, 5.0, 15.0)), (TWICE, (1.0, 2.0, 5.0))):
            for gamma, allowed in zip((1, 2, 3), limits, strict=True):
                what = f"{words}, {method}, 4 first tokens digital"
                yield Demand(what, study, method + FIRST, gamma, allowed, beside=method)


DEMANDS = (*_vit_s(), *_smollm2())
"""The rows of the table, in its order."""


def judged_block(found: Found) -> str:
    """The table of all demands, and one of what happens without noise."""
    head = ["what", "γσ", "allowed", "difference from software [95 % interval]", "far end", "verdict", *COSTS.values()]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(_row(demand, found.get(demand.study)))} |" for demand in DEMANDS]
    return "\n".join([*lines, "", *_without_noise(found)])


def _row(demand: Demand, found: Curves | None) -> list[str]:
    allowed = f"{demand.allowed:g} {'%' if demand.study.startswith('smollm2') else 'points'}"
    judged = None if found is None else demand.worst(found)
    sigma = 0.2 if found is None else found.sigma
    upper = f"{'up to ' if demand.up_to else ''}{sigma * demand.gamma:.2g}"
    if judged is None or found is None:
        return [demand.what, upper, allowed, MISSING, *["-"] * (2 + len(COSTS))]
    point, lost = judged
    at = f" (at {point.strength:.2g})" if point.gamma != demand.gamma else ""
    other = loss(found, found.point(demand.beside, demand.gamma)) if demand.beside else None
    without = f"; no digital tokens: {other or MISSING}" if demand.beside else ""
    verdict = f"**{verdict_of(demand, point, lost)}**{_shortage(demand, point)}"
    return [demand.what, upper, allowed, f"{lost}{at}{without}", lost.far, verdict, *beside(found, point)]


def verdict_of(demand: Demand, point: Point, lost: Loss) -> str:
    """'met', or by how much a demand is missed."""
    allowed, share = demand.allowed, point.accuracy.digital_tokens or 0.0
    if share > DIGITAL:
        return f"missed: {100 * share:.1f} % of the tokens are digital"
    if not is_bounded(lost):
        return "open: too few chips or samples"
    if lost.high <= allowed:
        return "met"
    by = f"missed by {lost.high - allowed:,.{max(1, lost.digits)}f}"
    return f"{by}; the mean is within" if lost.mean <= allowed else by


def _shortage(demand: Demand, point: Point) -> str:
    """Words on fewer chips or samples than a demand is judged with; empty if there are enough."""
    fewest, what = (WINDOWS, "windows") if demand.study.startswith("smollm2") else (PHOTOGRAPHS, "photographs")
    chips, samples = len(point.accuracy.chips), point.accuracy.samples
    if chips >= CHIPS and samples >= fewest:
        return ""
    return f", on {chips} chips and {samples:,} {what} instead of {CHIPS} and {fewest:,}"


def _without_noise(found: Found) -> Iterator[str]:
    """A sentence on each study that was measured without noise: whether anything was done."""
    for curve in found.values():
        plain = None if curve is None else curve.point(NOTHING, 0)
        if curve is None or plain is None:
            continue
        chosen = [method for method in (AUTO, SAME, SAME + FIRST, TWICE, TWICE + FIRST) if curve.point(method, 0)]
        acting = [method for method in chosen if not _idle(curve, method)]
        lost = loss(curve, plain)
        done = f"something is done by {', '.join(acting)}" if acting else "nothing is done"
        yield f"- {curve.title}, no noise: {done}; difference from software {lost or MISSING} (rounding to codes)."


def _idle(curve: Curves, method: str) -> bool:
    """True if a method changes nothing where there is no noise."""
    gained, point = curve.gain(NOTHING, method, 0), curve.point(method, 0)
    chosen = None if point is None else point.accuracy.chosen
    return gained is not None and gained.mean == 0 and (chosen is None or chosen.recipe == "none")


def met(found: Found) -> tuple[int, int, int]:
    """Number of demands that are met with enough chips and samples, that are measured, and of all."""
    curves = [(demand, found.get(demand.study)) for demand in DEMANDS]
    judged = [(demand, worst) for demand, curve in curves if curve and (worst := demand.worst(curve)) is not None]
    good = sum(
        verdict_of(demand, point, lost) == "met" and not _shortage(demand, point) for demand, (point, lost) in judged
    )
    return good, len(judged), len(DEMANDS)
