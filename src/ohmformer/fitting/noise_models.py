"""Candidates of write noise, each fitted to measurements by maximum likelihood.

Every candidate says mean and standard deviation of a measurement by target. Measurements at or below zero count as
clamped: their likelihood is that of a normal number below zero. Conductances are in units of the largest target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

Array = npt.NDArray[np.float64]
Deviation = Callable[[Array, Array], Array]
"""Parameters [K] and targets [N] -> standard deviations [N]."""

HIGHEST_DEGREE = 4
WIDEST_LOGNORMAL = 10.0
"""Largest standard deviation of ln G of a lognormal law."""
MOST_POINTS = 33
"""Number of distinct targets up to which each of them is a point of a table."""
MOST_TARGETS = 2000
"""Number of distinct targets up to which each of them enters a likelihood on its own."""
EXACT_TEST = 10_000
"""Number of residuals up to which the probability of their distance from normal is exact; it takes seconds beyond."""
LEAST_AT_POINT = 5
"""Number of measurements that each point of a table has at least."""
BINS = 9
"""Points of a table of targets without repetitions."""


@dataclass(frozen=True)
class Fitted:
    """A fitted candidate.

    Attributes:
        kind: kind of write noise.
        label: name for tables: the kind, and the degree of a polynomial.
        values: fitted parameters, by name.
        errors: their standard errors; NaN where the likelihood gives none.
        log_likelihood: of all measurements.
        count: number of parameters.
        mean: of a measurement, by target [N].
        std: standard deviation, likewise.
        bic: Bayesian information criterion, count ln N - 2 log_likelihood; the smallest one is chosen.
        scores: [M], the residuals of all measurements that are neither clamped nor exact, as normal numbers.
        ks: probability that as many normal numbers lie as far from normal as the scores (Kolmogorov and Smirnov);
            parameters are fitted, so it is an upper estimate. NaN where all residuals are zero.
    """

    kind: str
    label: str
    values: dict[str, Any]
    errors: dict[str, Any]
    log_likelihood: float
    count: int
    mean: Array
    std: Array
    bic: float
    scores: Array
    ks: float


def candidates(g: Array, y: Array, low: float) -> Iterator[Fitted]:
    """Fit all candidates.

    Args:
        g: [N], targets in units of the largest one.
        y: [N], measurements in the same unit.
        low: the smallest target.
    """
    spread = _pooled(g, y)
    floor = 1e-3 * spread if spread > 0 else 1e-9
    laws: dict[str, tuple[str, Deviation, Array]] = {
        "uniform": ("sigma", lambda p, g: np.full_like(g, p[0] * (1 - low)), np.array([spread / (1 - low)])),
        "proportional": ("sigma", lambda p, g: p[0] * g, np.array([spread])),
        "sqrt_range": ("sigma", lambda p, g: p[0] * np.sqrt((g - low).clip(0) * (1 - low)), np.array([spread])),
    }
    for kind, (name, law, start) in laws.items():
        p, errors, value = _maximized(law, start, g, y, floor)
        yield _fitted(kind, kind, {name: float(p[0])}, {name: float(errors[0])}, value, 1, g, y, law(p, g), g, floor)
    if g.min() > 0 and y.min() > 0:
        wide = _lognormal(g, y)
        if wide is not None:
            yield wide
    points = np.unique(g)
    for degree in range(1, min(HIGHEST_DEGREE, len(points) - 1) + 1):
        found = _polynomial(degree, g, y, floor)
        if found is not None:
            yield found
    yield from _tables(g, y, floor)


def _pooled(g: Array, y: Array) -> float:
    return float(np.sqrt(np.mean((y - g) ** 2)))


def log_likelihood(mean: Array, std: Array, y: Array, floor: float) -> float:
    """Log-likelihood of measurements; those at or below zero are clamped. Deviations are at least `floor`."""
    s = np.sqrt(std**2 + floor**2)
    z = (y - mean) / s
    density = -0.5 * z**2 - np.log(s) - 0.5 * math.log(2 * math.pi)
    return float(np.where(y > 0, density, special.log_ndtr(-mean / s)).sum())


def _maximized(law: Deviation, start: Array, g: Array, y: Array, floor: float) -> tuple[Array, Array, float]:
    """Parameters of the largest likelihood, their standard errors, and its logarithm.

    Measurements with the same target enter through their number and the sum of their squared errors; if there are more
    than `MOST_TARGETS` targets, likewise those with neighboring targets.
    """
    points, index = np.unique(g, return_inverse=True)
    merged = len(points) > MOST_TARGETS
    if merged:
        index = _ranks(g) * MOST_TARGETS // len(g)
        points = np.bincount(index, weights=g) / np.bincount(index)
    inside = y > 0
    counts, clamped = (np.bincount(index[rows], minlength=len(points)) for rows in (inside, ~inside))
    squares = np.bincount(index[inside], weights=(y - g)[inside] ** 2, minlength=len(points))

    def loss(p: Array) -> float:
        std = law(p, points)
        below = np.minimum(std, 0.0)
        s = np.sqrt(std.clip(0) ** 2 + floor**2)
        value = counts * (np.log(s) + 0.5 * math.log(2 * math.pi)) + squares / (2 * s**2)
        value = value - np.where(clamped > 0, clamped * special.log_ndtr(-points / s), 0.0)
        return float(value.sum()) + 1e3 * float((below**2).sum()) / floor**2

    best, options = start, {"maxiter": 4000, "xatol": 1e-8, "fatol": 1e-6}
    for _ in range(2):
        best = np.asarray(optimize.minimize(loss, best, method="Nelder-Mead", options=options).x, dtype=np.float64)
    value = log_likelihood(g, law(best, g).clip(0), y, floor) if merged else -float(loss(best))
    return best, _standard_errors(loss, best), value


def _ranks(g: Array) -> npt.NDArray[np.intp]:
    """The place of each value in rising order, from 0."""
    ranks = np.empty(len(g), dtype=np.intp)
    ranks[np.argsort(g, kind="stable")] = np.arange(len(g))
    return ranks


def _standard_errors(loss: Callable[[Array], float], p: Array) -> Array:
    """Square roots of the diagonal of the inverse Hessian of a loss; NaN if it is no minimum."""
    count, steps = len(p), 1e-3 * np.maximum(np.abs(p), 1e-3 * np.abs(p).max() + 1e-12)
    hessian = np.empty((count, count))
    for i in range(count):
        for j in range(i + 1):
            one, two = np.eye(count)[i] * steps, np.eye(count)[j] * steps
            value = loss(p + one + two) - loss(p + one - two) - loss(p - one + two) + loss(p - one - two)
            hessian[i, j] = hessian[j, i] = value / (4 * steps[i] * steps[j])
    try:
        variances = np.diag(np.linalg.inv(hessian))
    except np.linalg.LinAlgError:
        return np.full(count, np.nan)
    return np.sqrt(np.where(variances > 0, variances, np.nan))


def _fitted(
    kind: str, label: str, values: dict[str, Any], errors: dict[str, Any], likelihood: float, count: int,
    g: Array, y: Array, std: Array, mean: Array, floor: float,
) -> Fitted:  # fmt: skip
    s = np.sqrt(std.clip(0) ** 2 + floor**2)
    inside = (y > 0) & (std > floor)  # not clamped, and not exact
    scores = _scores((y - mean)[inside] / s[inside], -mean[inside] / s[inside])
    bic = count * math.log(len(y)) - 2 * likelihood
    return Fitted(kind, label, values, errors, likelihood, count, mean, s, bic, scores, _normality(scores))


def _scores(z: Array, least: Array) -> Array:
    """The normal numbers at the same quantiles as normal numbers that are known to be above a least one.

    Measurements below zero are clamped, so that the residuals of the others are cut off there.

    Args:
        z: [M], residuals in standard deviations.
        least: [M], the residual at which each measurement would be zero.
    """
    above = np.minimum(special.log_ndtr(-z) - special.log_ndtr(-least), -1e-300)
    return -np.asarray(special.ndtri_exp(above), dtype=np.float64)


def _normality(z: Array) -> float:
    """Probability that as many normal numbers lie as far from normal as these (Kolmogorov and Smirnov)."""
    if len(z) < 2:
        return math.nan
    method = "auto" if len(z) <= EXACT_TEST else "asymp"
    return float(stats.kstest(z, "norm", method=method).pvalue)


def _lognormal(g: Array, y: Array) -> Fitted | None:
    """ln y is normal around ln g; None if it is wider than any cell, as single measurements near zero make it."""
    z = np.log(y / g)
    sigma = float(np.sqrt(np.mean(z**2)))
    if sigma > WIDEST_LOGNORMAL:
        return None
    value = float((stats.norm.logpdf(z, scale=max(sigma, 1e-12)) - np.log(y)).sum())
    factor = math.exp(sigma**2)
    mean, std = g * math.sqrt(factor), g * math.sqrt(factor * (factor - 1))
    scores = z / sigma if sigma > 1e-12 else z[:0]
    error = sigma / math.sqrt(2 * len(y))
    bic = math.log(len(y)) - 2 * value
    return Fitted(
        "lognormal", "lognormal", {"sigma": sigma}, {"sigma": error}, value, 1, mean, std, bic, scores,
        _normality(scores),
    )  # fmt: skip


def _polynomial(degree: int, g: Array, y: Array, floor: float) -> Fitted | None:
    """A polynomial of the standard deviation; None if it falls below zero between the targets."""
    points, stds, weights = _by_point(g, y)
    fit = np.polynomial.Polynomial.fit(points, stds, min(degree, len(points) - 1), w=np.sqrt(weights)).convert().coef
    start = np.zeros(degree + 1)
    start[: len(fit)] = fit

    def law(p: Array, g: Array) -> Array:
        return np.asarray(np.polynomial.polynomial.polyval(g, p), dtype=np.float64)

    p, errors, value = _maximized(law, start, g, y, floor)
    if law(p, np.linspace(g.min(), 1.0, 501)).min() < 0:
        return None
    values, sigmas = tuple(map(float, p)), tuple(map(float, errors))
    label = f"polynomial of degree {degree}"
    return _fitted(
        "piecewise_polynomial", label, {"coefficients": values}, {"coefficients": sigmas}, value, degree + 1, g, y,
        law(p, g), g, floor,
    )  # fmt: skip


def _by_point(g: Array, y: Array) -> tuple[Array, Array, Array]:
    """Points of a table, standard deviations around the targets there, and numbers of measurements."""
    edges = _groups(g)
    points = np.array([g[group].mean() for group in edges])
    stds = np.array([np.sqrt(np.mean((y[group] - g[group]) ** 2)) for group in edges])
    return points, stds, np.array([float(len(group)) for group in edges])


def _groups(g: Array) -> list[npt.NDArray[np.intp]]:
    """Indices of measurements by target; by equal shares of all measurements if targets hardly repeat."""
    points, inverse, counts = np.unique(g, return_inverse=True, return_counts=True)
    if len(points) <= MOST_POINTS and counts.min() >= LEAST_AT_POINT:
        return [np.flatnonzero(inverse == index) for index in range(len(points))]
    order = np.argsort(g, kind="stable")
    return [group for group in np.array_split(order, max(2, min(BINS, len(g) // LEAST_AT_POINT))) if len(group)]


def _tables(g: Array, y: Array, floor: float) -> Iterator[Fitted]:
    """A table of deviations, and one of means and deviations."""
    groups = _groups(g)
    points = np.array([g[group].mean() for group in groups])
    around = np.array([_deviation(g[group], y[group]) for group in groups]).T
    (shifts, shift_errors), within = np.split(
        np.array([_shift_and_deviation(g[group], y[group]) for group in groups]).T, 2
    )
    for biased in (False, True):
        stds, std_errors = within if biased else around
        mean = g + np.interp(g, points, shifts) if biased else g
        std = np.interp(g, points, stds)
        value = log_likelihood(mean, std, y, floor)
        values: dict[str, Any] = {"targets": tuple(points.tolist()), "std": tuple(stds.tolist())}
        errors: dict[str, Any] = {"std": tuple(std_errors.tolist())}
        if biased:
            values["mean"] = tuple((points + shifts).clip(0).tolist())
            errors["mean"] = tuple(shift_errors.tolist())
        label = "table of means and deviations" if biased else "table of deviations"
        yield _fitted("table", label, values, errors, value, (1 + biased) * len(points), g, y, std, mean, floor)


def _deviation(g: Array, y: Array) -> tuple[float, float]:
    """Standard deviation of largest likelihood around the targets, and its standard error."""
    start = float(np.sqrt(np.mean((y - g) ** 2)))
    if start == 0 or y.min() > 0:
        return start, start / math.sqrt(2 * len(y))

    def loss(p: Array) -> float:
        return -log_likelihood(g, np.full_like(g, math.exp(p[0])), y, 0.0)

    bounds = (math.log(start) - 3, math.log(start) + 3)
    log = float(optimize.minimize_scalar(lambda p: loss(np.array([p])), bounds=bounds, method="bounded").x)
    return math.exp(log), math.exp(log) * float(_standard_errors(loss, np.array([log]))[0])


def _shift_and_deviation(g: Array, y: Array) -> tuple[float, float, float, float]:
    """Mean error of largest likelihood with its standard error, and standard deviation likewise. No mean is below zero.

    A mean of zero is the end of its range, so it has no standard error (NaN).
    """
    shift, std, low = float((y - g).mean()), float((y - g).std()), -float(g.mean())
    if std == 0 or y.min() > 0 or y.max() <= 0:
        return max(shift, low), std / math.sqrt(len(y)), std, std / math.sqrt(2 * len(y))

    def loss(p: Array) -> float:
        return -log_likelihood(g + max(p[0], low), np.full_like(g, math.exp(p[1])), y, 0.0)

    shift, log = optimize.minimize(loss, np.array([max(shift, low), math.log(std)]), method="Nelder-Mead").x
    if shift <= low:
        alone = _standard_errors(lambda p: loss(np.array([low, p[0]])), np.array([log]))
        return low, math.nan, math.exp(log), math.exp(log) * float(alone[0])
    errors = _standard_errors(loss, np.array([shift, log]))
    return float(shift), float(errors[0]), math.exp(log), math.exp(log) * float(errors[1])
