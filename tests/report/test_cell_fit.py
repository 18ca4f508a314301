"""The figure of a fitted cell shows what its probability is of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from ohmformer.fitting.fit import fit_cell
from ohmformer.report.cell_fit import draw, sentences


@pytest.mark.parametrize("law", ["lognormal", "clamped"])
def test_quantiles_of_residuals_are_those_of_the_probability(law: str) -> None:
    """They used to be cut off at zero, and lognormal ones were bent, beside a large p."""
    rng, g = np.random.default_rng(2), np.repeat([2.0, 6.0, 9.0, 20.0], 80)
    eps = rng.standard_normal(len(g))
    table: dict[str, Any] = {
        "target [uS]": g,
        "measured [uS]": g * np.exp(0.5 * eps) if law == "lognormal" else (g + 3.5 * eps).clip(0),
    }
    fit = fit_cell(table)
    assert fit.chosen.label == ("lognormal" if law == "lognormal" else "uniform")
    (x, y) = draw(fit).axes[2].lines[0].get_data()
    assert len(np.asarray(y)) == np.count_nonzero(table["measured [uS]"])
    assert np.abs(np.asarray(y) - x).max() < 0.8
    assert stats.kstest(y, "norm").pvalue == pytest.approx(fit.chosen.ks)
    assert fit.normality in draw(fit).axes[2].get_ylabel()


def test_columns_that_are_not_read_are_told() -> None:
    """A column of cells with an unknown title used to be left out in silence, and the spread of drift was too small."""
    rng = np.random.default_rng(1)
    cell, target, time = (grid.ravel() for grid in np.meshgrid(range(12), [2.0, 6.0, 20.0], [1.0, 10.0, 100.0]))
    nu = 0.05 + 0.01 * rng.standard_normal(12)
    measured = target * (1 + 0.05 * rng.standard_normal(len(target))) * time ** -nu[cell.astype(int)]
    table: dict[str, Any] = {"target [uS]": target, "measured [uS]": measured, "time [s]": time}
    unnamed = " ".join(sentences(fit_cell({**table, "Zelle": cell})))
    assert "Not read: Zelle. Known: target, measured, time, cycle, cell." in unnamed
    assert "drift is fitted to the mean of each target" in unnamed
    named = " ".join(sentences(fit_cell({**table, "cell": cell})))
    assert "Not read" not in named
    assert "mean of each target" not in named
