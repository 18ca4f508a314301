"""A cell from measurements: the write noise that explains them best, its range, drift and endurance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ohmformer import units
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.fitting.aging import Aging, drift, endurance
from ohmformer.fitting.measurements import Measurements, measurements_of, read_measurements
from ohmformer.fitting.noise_models import Fitted, candidates

EQUAL = 2.0
"""Difference of information criteria up to which two candidates explain measurements equally well."""
DOUBTFUL = 0.01
"""Probability of the residuals below which a fit is called doubtful."""


@dataclass(frozen=True)
class CellFit:
    """What `fit_cell` found.

    Attributes:
        cell: the cell.
        chosen: the write noise of the cell, and how well it fits.
        candidates: all kinds that were tried, the best one first.
        drift: the drift of the cell; None without times.
        endurance: number of cycles, and True if cells were worn out then; None without cycles.
        measured: the measurements of the write noise: those of the first time.
        scale: the largest target [S], the unit of `chosen`.
        left_out: number of rows without a target or a measured value.
    """

    cell: Cell
    chosen: Fitted
    candidates: tuple[Fitted, ...]
    drift: Aging | None
    endurance: tuple[float, bool] | None
    measured: Measurements
    scale: float
    left_out: int

    @property
    def doubtful(self) -> bool:
        """True if normal residuals would lie as far from normal as these with a probability below 1 %."""
        return self.chosen.ks < DOUBTFUL

    def toml(self) -> str:
        """The cell as the text of a cell file, with how each number was derived."""
        from ohmformer.fitting.cell_text import cell_text

        return cell_text(self)


def fit_cell(frame: Any) -> CellFit:
    """Fit a cell to measured conductances.

    The kind of write noise with the smallest Bayesian information criterion is chosen, among the usual laws,
    polynomials up to fourth degree, and tables; of kinds within 2 of the smallest one, that with the fewest parameters.
    Measurements at or below zero count as clamped.

    Args:
        frame: path of a CSV file, a data frame, or a mapping from names to columns: target and measured conductance,
            and optionally time, cycle and cell. Names may carry units, such as `target [uS]`.

    Raises:
        BadInput: a column is missing or has no unit, a value is not a number, or all targets are the same.
    """
    table = read_measurements(frame) if isinstance(frame, str) else measurements_of(frame)
    first = table if table.time is None else table.rows(table.time == table.time.min())
    scale, low = float(first.target.max()), float(first.target.min())
    if not scale > low * (1 + 1e-9):
        raise BadInput(
            f"{table.where}: all targets are {units.show(scale, 'S')}, so the cell has no range; measure two or more"
        )
    tried = candidates(first.target / scale, first.measured / scale, low / scale)
    found = sorted(tried, key=lambda each: each.bic)
    aging = None if table.time is None or len(np.unique(table.time)) < 2 else drift(table)
    worn = endurance(first)
    chosen = min((each for each in found if each.bic <= found[0].bic + EQUAL), key=lambda each: each.count)
    cell: dict[str, Any] = {"g_min": low, "g_max": scale, "write_noise": noise_fields(chosen, scale, low)}
    if aging is not None and aging.kind:
        cell["drift"] = {"kind": aging.kind, **aging.values}
    if worn is not None:
        cell["endurance"] = worn[0]
    return CellFit(Cell.model_validate(cell), chosen, tuple(found), aging, worn, first, scale, table.left_out)


def noise_fields(fitted: Fitted, scale: float, low: float) -> dict[str, Any]:
    """The fields of the write noise of a cell, in SI units, from a fit in units of the largest target [S]."""
    if fitted.kind == "piecewise_polynomial":
        coefficients = tuple(scale * c for c in fitted.values["coefficients"])
        return {"kind": fitted.kind, "g_ref": scale, "coefficients": (coefficients,)}
    if fitted.kind == "table":
        return {"kind": fitted.kind, **_table_fields(fitted, scale, low)}
    return {"kind": fitted.kind, **fitted.values}


def _table_fields(fitted: Fitted, scale: float, low: float) -> dict[str, Any]:
    """A table in SI units, whose ends are moved to the range of the cell."""
    targets = [scale * value for value in fitted.values["targets"]]
    targets[0], targets[-1] = low, scale
    fields: dict[str, Any] = {"targets": tuple(targets), "std": (tuple(scale * v for v in fitted.values["std"]),)}
    if "mean" in fitted.values:
        fields["mean"] = (tuple(scale * v for v in fitted.values["mean"]),)
    return fields
