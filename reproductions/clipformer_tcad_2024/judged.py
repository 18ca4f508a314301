"""Requirements that were set before the measurement, and whether they hold, computed from stored results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from common.curves import Curves, paired
from common.pages import MISSING, NOTHING, shown
from stored import CHANCE, GAMMAS

from ohmformer.report.table import entry
from ohmformer.report.verdict import Gain

AUTO, CLIP, NONE = "auto", "clip", "none"
LEFT = {"half": 0.5, "quarter": 0.25}
"""Shares of the software accuracy at which methods are judged."""

ALLOWED = {"none": 0.5, "half": 2.0, "quarter": 8.0, "trained": 4.0}
"""Points below software that were allowed beforehand: without noise, at both shares, and at a quarter with training."""

GAIN = (10.0, 40.0)
"""Points that ClipFormer should bring where noise is strong."""


def judged_block(plain: Curves | None, trained: Mapping[str, Curves | None]) -> str:
    """One line for each demand.

    Args:
        plain: the classifier as it is.
        trained: the same trained under noise, by what that adds to the name of its study (`TRAINED`).
    """
    if plain is None or NONE not in plain.found:
        return NOTHING
    lines = [*_pattern(plain), *_steps(plain), *_ours(plain), *_training(plain, trained)]
    return "\n".join(f"- {line}" for line in lines)


def level(plain: Curves, share: float) -> float:
    """The noise at which the unprotected model is nearest to a share of its software accuracy."""
    column = plain.found[NONE]
    return min(column, key=lambda gamma: abs(column[gamma].accuracy.mean - share * plain.software))


def _pattern(plain: Curves) -> Iterator[str]:
    show, places = plain.metric.show, []
    for name, share in LEFT.items():
        gamma = level(plain, share)
        left = plain.found[NONE][gamma].accuracy.mean
        places.append(
            f"{show(left)} % ({100 * left / plain.software:.0f} % of it) at γ = {gamma:g}, "
            f"the level nearest to a {name}"
        )
    yield (
        f"**Noise levels.** Software reaches {show(plain.software)} %. The unprotected model keeps "
        f"{', and '.join(places)}; chance is {show(CHANCE)} %."
    )
    strong = [gamma for gamma in GAMMAS if gamma >= level(plain, LEFT["quarter"])]
    gains = {gamma: found for gamma in strong if (found := plain.gain(NONE, CLIP, gamma)) is not None}
    if gains:
        told = ", ".join(f"{shown(found)} at γ = {gamma:g}" for gamma, found in gains.items())
        inside = all(GAIN[0] <= 100 * found.low and 100 * found.high <= GAIN[1] for found in gains.values())
        asked = f"required: {GAIN[0]:g} to {GAIN[1]:g} points"
        yield f"**The paper's finding.** ClipFormer gains {told}; {asked}: {_holds(inside)}."


def _steps(plain: Curves) -> Iterator[str]:
    gamma = level(plain, LEFT["half"])
    gains = [plain.gain(a, b, gamma) for a, b in pairwise((NONE, "calibrated", AUTO))]
    if None in gains:
        yield f"**Order at γ = {gamma:g}**, where half is left: {MISSING}."
        return
    told = ", ".join(shown(found) for found in gains if found is not None)
    above = all(found.low > 0 for found in gains if found is not None)
    ends = plain.found[NONE][gamma].accuracy.ci95[1], plain.found[AUTO][gamma].accuracy.ci95[0]
    yield (
        f"**Order at γ = {gamma:g}**, where half is left: from no mitigation to ClipFormer with calibrated thresholds "
        f"to ours, {told}; required: all bounds above zero, and separate intervals of no mitigation and ours: "
        f"{_holds(above and ends[0] < ends[1])}."
    )


def _ours(plain: Curves) -> Iterator[str]:
    for name in LEFT:
        yield _distance(f"Ours where a {name} is left", plain, level(plain, LEFT[name]), ALLOWED[name], plain)
    yield _distance("Ours without noise", plain, 0.0, ALLOWED["none"], plain)
    gains = {gamma: found for gamma in plain.gammas if (found := plain.gain(NONE, AUTO, gamma)) is not None}
    lowered = [f"{gamma:g}" for gamma, found in gains.items() if found.high < 0]
    yield (
        f"**No harm.** Of γ = {', '.join(f'{gamma:g}' for gamma in gains)}, ours is certainly below no mitigation at "
        f"{', '.join(lowered) or 'no level'}: {_holds(not lowered)}."
    )


def _training(plain: Curves, trained: Mapping[str, Curves | None]) -> Iterator[str]:
    alone = trained.get("_vat")
    for ending, how in (("_vat", "trained without it"), ("_vat_clip", "trained with it")):
        yield _together(plain, alone, trained.get(ending), f"Training and ClipFormer's clip, {how}")
    conditioned, gamma = trained.get("_vat_kv"), level(plain, LEFT["quarter"])
    if conditioned is None:
        yield f"**Ours with variation-aware training**: {MISSING}."
    else:
        yield _distance("Ours with variation-aware training", conditioned, gamma, ALLOWED["trained"], plain)


def _together(plain: Curves, alone: Curves | None, both: Curves | None, title: str) -> str:
    """The clip on a trained model against training alone and the clip alone, at the noise levels of the paper."""
    told, above = [], []
    for gamma in GAMMAS:
        point = None if both is None else both.found.get(CLIP, {}).get(gamma)
        trained = None if alone is None else alone.found.get(NONE, {}).get(gamma)
        references = (trained, plain.found.get(CLIP, {}).get(gamma))
        gains = [found for each in references if (found := paired(point, each, gamma)) is not None]
        if point is not None and len(gains) == len(references):
            told.append(f"{gains[0].metric.show(point.accuracy.mean)} % at γ = {gamma:g} ({_both(gains)})")
            above.append(all(found.low > 0 for found in gains))
    if not told:
        return f"**{title}**: {MISSING}."
    required = "above training alone and above the clip alone"
    return f"**{title}**: {'; '.join(told)}. Required: {required}: {_holds(all(above))}."


def _both(gains: list[Gain]) -> str:
    return f"against training alone {shown(gains[0])}, against the clip alone {shown(gains[1])}"


def _distance(title: str, found: Curves, gamma: float, allowed: float, reference: Curves) -> str:
    """How far ours stays behind the software model of a reference, against what is allowed."""
    point = found.found.get(AUTO, {}).get(gamma)
    if point is None:
        return f"**{title}**, γ = {gamma:g}: {MISSING}."
    lost = 100 * (reference.software - point.accuracy.mean)
    difference = paired(point, reference.software_point, gamma) if reference.software_point else None
    bounds = "" if difference is None else f" (difference {shown(difference)})"
    certain = difference is not None and -100 * difference.low <= allowed
    only_mean = "holds for the mean, not for the far end of its interval"
    verdict = only_mean if lost <= allowed and not certain else _holds(certain)
    return (
        f"**{title}**, γ = {gamma:g}: {entry(point.accuracy)} %, {lost:.1f} points below software{bounds}; allowed: "
        f"{allowed:g}: {verdict}."
    )


def _holds(so: bool) -> str:
    return "holds" if so else "does not hold"
