"""The quantities of single cells that claims may name. Torch is imported when one is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ohmformer.array.spec import Crossbar
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.schema import load
from ohmformer.validation.claim_file import Claim
from ohmformer.validation.claim_runs import Evaluator

if TYPE_CHECKING:
    from torch import Tensor

Compute = Callable[[Evaluator, Claim], float]


def _cell(claim: Claim, name: str = "") -> Cell:
    """Return the cell of a claim.

    Raises:
        BadInput: the claim names none, or the library has no such cell.
    """
    name = name or claim.cell
    if not name:
        raise BadInput(f"{claim.id}: cell: is missing; name a cell of the library")
    return load(Cell, name)


def _conductance(claim: Claim, cell: Cell) -> Tensor:
    """Return the conductance of a claim as a tensor [1], in S.

    Raises:
        BadInput: the claim names none.
    """
    import torch

    if claim.share is None:
        raise BadInput(f"{claim.id}: share: is missing; give a conductance as a share of G_max")
    return torch.tensor([claim.share * cell.g_max], dtype=torch.float64)


def _write_deviation(claim: Claim, name: str = "") -> float:
    """Return the standard deviation of one write [S], as it is at the age of the claim."""
    from ohmformer.device import noise

    cell = _cell(claim, name).at_age(claim.age)
    return float(noise.write_std(_conductance(claim, cell), cell))


def _conductance_left(claim: Claim) -> float:
    """Return the share of a conductance that is left at an age, for a cell with the mean drift."""
    from ohmformer.device import drift

    cell = _cell(claim)
    g = _conductance(claim, cell)
    return float(drift.drift(g, g, cell, g.new_zeros(1), age=claim.age) / g)


def _read_deviation(claim: Claim) -> float:
    """Return the standard deviation of one read, as a share of the conductance."""
    from ohmformer.device import noise

    cell = _cell(claim)
    g = _conductance(claim, cell)
    return float(noise.read_std(g, cell, age=claim.age, written=g) / g)


def _fourier_error(claim: Claim) -> float:
    """Return the mean absolute error of the weights of a discrete Fourier transform, in one draw.

    Weights have 8 bits in one cell, or in one pair of cells. An offset is subtracted in digital logic.
    """
    import torch

    from ohmformer.array.crossbar import program

    bits = 8 if claim.encoding == "offset" else 7
    geometry = {"rows": claim.points, "columns": claim.points, "bits": bits, "bits_per_cell": bits}
    array = Crossbar.model_validate({**geometry, "encoding": claim.encoding, "cell": _cell(claim)})
    steps = torch.arange(claim.points, dtype=torch.float64)
    phase = 2 * math.pi / claim.points * torch.outer(steps, steps)
    squares = torch.zeros_like(phase)
    for stream, weights in enumerate((phase.cos(), -phase.sin())[: 1 if claim.parts == "real" else 2]):
        programmed = program(weights, array, w_range=1.0, stream=stream)
        held = programmed.digits[:, 0]
        codes = held[0] - (held[1] if claim.encoding == "differential" else 2.0 ** (bits - 1))
        squares += (codes * programmed.unit - weights).square()
    return float(squares.sqrt().mean())


DEVICE_QUANTITIES: Mapping[str, tuple[str, Compute]] = {
    "write_deviation": ("S", lambda _, claim: _write_deviation(claim)),
    "write_deviation_share": ("%", lambda _, claim: _write_deviation(claim) / _cell(claim).g_max),
    "deviation_ratio": ("", lambda _, claim: _write_deviation(claim) / _write_deviation(claim, claim.other_cell)),
    "conductance_left": ("%", lambda _, claim: _conductance_left(claim)),
    "read_deviation": ("%", lambda _, claim: _read_deviation(claim)),
    "fourier_error": ("", lambda _, claim: _fourier_error(claim)),
}
"""Quantity -> SI unit, and the function that computes it from the cell of a claim."""
