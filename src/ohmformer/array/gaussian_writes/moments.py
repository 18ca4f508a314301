"""Pairs of cells whose write is one Gaussian for each cell: which arrays have them, and their moments by code.

Shapes: S slices (copies included), K magnitudes of codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.degradation.compensation import compensates
from ohmformer.array.peripherals.spec import mismatched
from ohmformer.array.spec import Crossbar
from ohmformer.device import drift, faults, noise


def gaussian_pairs(array: Crossbar) -> bool:
    """True if an array holds pairs of cells whose write is one Gaussian each, and nothing else but a clamp."""
    cell = array.aged_cell
    if array.encoding != "differential" or array.write_verify or array.wires or not noise.gaussian(cell):
        return False
    if mismatched(array) or array.residual is not None:
        return False
    still = not drift.drifts(cell, array.age) and not compensates(array)
    return still and not faults.faulty(cell) and not array.saturates


def means_and_stds(array: Crossbar, slices: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, before the clamp, of the digit that is held, by slice and magnitude: each [S, K]."""
    codes = torch.arange(array.capacity(slices) + 1, dtype=torch.float64)
    digits = torch.stack(list(encoding.slice_digits(codes, array, slices)))
    g, cell = encoding.level_conductances(array), array.aged_cell
    std_by_digit = noise.write_std(g, cell) / array.step
    mean = noise.write_mean(g, cell)
    means = digits if mean is g and not cell.uneven else ((mean - cell.g_min) / array.step)[digits.long()]
    return means, std_by_digit[digits.long()]
