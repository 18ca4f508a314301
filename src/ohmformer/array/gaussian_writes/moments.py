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
    return array.residual is None and gaussian_cells(array)


def gaussian_cells(array: Crossbar) -> bool:
    """`gaussian_pairs`, where the digit of a cell may depend on what others hold."""
    cell = array.aged_cell
    if array.encoding != "differential" or array.write_verify or array.wires or not noise.gaussian(cell):
        return False
    if mismatched(array):
        return False
    still = not drift.drifts(cell, array.age) and not compensates(array)
    return still and not faults.faulty(cell) and not array.saturates


def means_and_stds(array: Crossbar, slices: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, before the clamp, of the digit that is held, by slice and magnitude: each [S, K]."""
    codes = torch.arange(array.capacity(slices) + 1, dtype=torch.float64)
    digits = torch.stack(list(encoding.slice_digits(codes, array, slices))).long()
    means, stds = of_digits(array)
    return means[digits], stds[digits]


def of_digits(array: Crossbar) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, before the clamp, of what is held of each digit [digits]: each [levels]."""
    g, cell = encoding.level_conductances(array), array.aged_cell
    mean = noise.write_mean(g, cell)
    even = mean is g and not cell.uneven
    means = torch.arange(len(g), dtype=g.dtype) if even else (mean - cell.g_min) / array.step
    return means, noise.write_std(g, cell) / array.step


def of_whole_values(array: Crossbar, slices: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of what all cells of a value hold together, by magnitude of its code: each [K]."""
    means, stds = means_and_stds(array, slices)
    weights = torch.tensor([array.slice_weight(s) for s in range(slices)], dtype=torch.float64)
    variance = (weights[:, None] * stds / array.redundancy).square().sum(dim=0)
    held = (weights[:, None] * means / array.redundancy).sum(dim=0)
    return held - held[0], (variance + variance[0]).sqrt()  # the unused half of a pair holds code 0
