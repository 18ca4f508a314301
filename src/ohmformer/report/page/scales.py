"""Units for the axes of a chart, one prefix for all of its values; and lifetimes in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ohmformer.study.results.costs import CostResult, ServedResult

PREFIXES = (
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "u"),
    (1e-9, "n"),
    (1e-12, "p"),
)
SQUARE_MM = 1e-6
YEAR = 31557600.0
SPANS = ((YEAR, "years"), (86400.0, "days"), (3600.0, "h"))


def scale(values: Iterable[float], unit: str) -> tuple[float, str]:
    """SI size and name of the unit in which the largest value is at least 1; square millimeters for areas."""
    if unit == "m^2":
        return SQUARE_MM, "mm²"
    largest = max((abs(value) for value in values), default=0.0)
    for size, prefix in PREFIXES:
        if largest >= size:
            return size, f"{prefix}{unit}"
    return 1e-15, f"f{unit}"


def scale_of_times(values: Sequence[float]) -> tuple[float, str]:
    """The same for lifetimes, which may be years."""
    largest = max(values, default=0.0)
    for size, name in SPANS:
        if largest >= size:
            return size, name
    return scale(values, "s")


def lifetime_text(seconds: float) -> str:
    """A lifetime in years, days, hours or seconds, without exponents where it can be."""
    size, name = scale_of_times([seconds])
    return f"{amount_text(seconds / size)} {name}"


def amount_text(value: float) -> str:
    """Three digits: '3.25', '26,500'; with an exponent from a million on."""
    if not 1000 <= value < 1e6:
        return f"{value:.3g}"
    return f"{float(f'{value:.3g}'):,.0f}"


def lifetime_of(cost: CostResult | ServedResult) -> str:
    """The lifetime of a point in words."""
    if cost.lifetime is None:
        return "not known"
    return "no wear" if cost.lifetime_s is None else lifetime_text(cost.lifetime_s)


def spread(values: Sequence[float]) -> bool:
    """True if positive values differ so much that only a logarithmic axis shows all of them."""
    return bool(values) and min(values) > 0 and max(values) > 30 * min(values)
