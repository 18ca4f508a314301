"""Units for the axes of a chart: one prefix for all of its values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

PREFIXES = (
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "µ"),
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


def spread(values: Sequence[float]) -> bool:
    """True if positive values differ so much that only a logarithmic axis shows all of them."""
    return bool(values) and min(values) > 0 and max(values) > 30 * min(values)
