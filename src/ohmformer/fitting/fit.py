"""A cell from measurements: the write noise that explains them best, its range, drift and endurance."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from ohmformer import units
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput, fault_of
from ohmformer.fitting.aging import Aging, drift, endurance
from ohmformer.fitting.measurements import (
    LARGEST_CONDUCTANCE,
    LEAST_CONDUCTANCE,
    LEAST_ROWS,
    Measurements,
    measurements_of,
    read_measurements,
)
from ohmformer.fitting.noise_models import Fitted, candidates

EQUAL = 2.0
"""Difference of information criteria up to which two candidates explain measurements equally well."""
SAME_TIME = 2.0
"""Ratio to their median up to which first times of cells count as the same."""
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
        measured: the measurements of the write noise: those of the first time, before cells are worn out.
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

    @property
    def normality(self) -> str:
        """How probable it is that normal residuals lie as far from normal, in words."""
        return "no p, since all residuals are zero" if math.isnan(self.chosen.ks) else f"p = {self.chosen.ks:.2g}"

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
    first = table if table.time is None else table.rows(_first_rows(table))
    scale, low = float(first.target.max()), float(first.target.min())
    if not scale > low * (1 + 1e-9):
        raise BadInput(
            f"{table.where}: all targets are {units.show(scale, 'S')}, so the cell has no range; measure two or more"
        )
    worn = endurance(first)
    table, first = _before_wear(table, worn), _before_wear(first, worn)
    _check_usable(first, low, scale)
    aging = None if table.time is None or len(np.unique(table.time)) < 2 else drift(table)
    first = _just_after_writing(first, aging)
    tried = candidates(first.target / scale, first.measured / scale, low / scale)
    found = sorted(tried, key=lambda each: each.bic)
    chosen = min((each for each in found if each.bic <= found[0].bic + EQUAL), key=lambda each: each.count)
    cell: dict[str, Any] = {"g_min": low, "g_max": scale, "write_noise": noise_fields(chosen, scale, low)}
    if aging is not None and aging.kind:
        cell["drift"] = {"kind": aging.kind, **aging.values}
    if worn is not None:
        cell["endurance"] = worn[0]
    try:
        usable = Cell.model_validate(cell)
    except ValidationError as error:
        reason = fault_of(error, Cell, cell)
        raise BadInput(f"{table.where}: the fitted cell is beyond all cells ({reason}); check the units") from None
    return CellFit(usable, chosen, tuple(found), aging, worn, first, scale, table.left_out)


def _before_wear(table: Measurements, worn: tuple[float, bool] | None) -> Measurements:
    """The measurements before the cycle at which cells are worn out; those of an unknown cycle stay."""
    if worn is None or not worn[1]:
        return table
    assert table.cycle is not None
    return table.rows(~(table.cycle >= worn[0]))


def _first_rows(table: Measurements) -> npt.NDArray[np.bool_]:
    """Which rows are the first measurements after a write.

    They are those of the first time. If some targets were not measured at that time, since times vary from cell to
    cell, they are the first ones of each cell and target, up to `SAME_TIME` times their median.
    """
    assert table.time is not None
    exact: npt.NDArray[np.bool_] = table.time == table.time.min()
    if len(np.unique(table.target[exact])) == len(np.unique(table.target)):
        return exact
    keys = [column for column in (table.target, table.cell, table.cycle) if column is not None]
    _, group = np.unique(np.stack(keys), axis=1, return_inverse=True)
    earliest = np.full(int(group.max()) + 1, np.inf)
    np.minimum.at(earliest, group.ravel(), table.time)
    last = SAME_TIME * float(np.median(earliest))
    early: npt.NDArray[np.bool_] = table.time <= last
    return early if table.cell is None else early & (table.time == earliest[group.ravel()])


def _check_usable(first: Measurements, low: float, scale: float) -> None:
    """Refuse conductances that no cell has, and tables without one measurement above zero.

    Raises:
        BadInput: the table is of this kind.
    """
    if scale > LARGEST_CONDUCTANCE or 0 < low < LEAST_CONDUCTANCE:
        raise BadInput(
            f"{first.where}: targets from {units.show(low, 'S')} to {units.show(scale, 'S')} are beyond cells; "
            "check the unit"
        )
    if not np.any(first.measured > 0):
        raise BadInput(f"{first.where}: no measured conductance is above 0; check the signs")
    if len(first.target) < LEAST_ROWS:
        raise BadInput(
            f"{first.where}: has {len(first.target)} measurements just after a write of cells that are not worn out, "
            f"at least {LEAST_ROWS} are needed; add some"
        )


def _just_after_writing(first: Measurements, aging: Aging | None) -> Measurements:
    """The first measurements, without what an exponential decay has taken since the write.

    A power law starts at the first time, so nothing is taken before.
    """
    if aging is None or aging.kind != "exponential":
        return first
    assert first.time is not None
    return replace(first, measured=first.measured * np.exp(first.time / aging.values["tau"]))


def noise_fields(fitted: Fitted, scale: float, low: float) -> dict[str, Any]:
    """The fields of the write noise of a cell, in SI units, from a fit in units of the largest target [S]."""
    if fitted.kind == "piecewise_polynomial":
        coefficients = tuple(_siemens(scale * c) for c in fitted.values["coefficients"])
        return {"kind": fitted.kind, "g_ref": scale, "coefficients": (coefficients,)}
    if fitted.kind == "table":
        return {"kind": fitted.kind, **_table_fields(fitted, scale, low)}
    return {"kind": fitted.kind, **fitted.values}


def _table_fields(fitted: Fitted, scale: float, low: float) -> dict[str, Any]:
    """A table in SI units, whose ends are moved to the range of the cell."""
    targets = [scale * value for value in fitted.values["targets"]]
    targets[0], targets[-1] = low, scale
    fields: dict[str, Any] = {
        "targets": tuple(targets),
        "std": (tuple(_siemens(scale * v) for v in fitted.values["std"]),),
    }
    if "mean" in fitted.values:
        fields["mean"] = (tuple(_siemens(scale * v) for v in fitted.values["mean"]),)
    return fields


def _siemens(value: float) -> float:
    """A fitted value; 0 if it is smaller than any conductance of a cell."""
    return value if abs(value) >= LEAST_CONDUCTANCE else 0.0
