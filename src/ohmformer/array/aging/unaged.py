"""Cells that were written at different times: they are kept as written, and age when they are read.

Shapes: B samples, S slices (copies included), P polarities, R matrices of a sample (heads), O outputs, I inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Unpack

import torch
from torch import Tensor

from ohmformer.array import crossbar, encoding
from ohmformer.array.crossbar import WriteOptions, WriteRequest
from ohmformer.array.peripherals.mismatch import Mismatch
from ohmformer.array.peripherals.spec import distorts, mismatched
from ohmformer.array.programmed import Programmed, read_variance
from ohmformer.array.spec import Crossbar
from ohmformer.array.wires.effective import act_through_wires, effective_shares
from ohmformer.array.writing import Columns, Held, UnagedSlice
from ohmformer.device import drift, faults, noise
from ohmformer.device.spec import Cell


@dataclass(frozen=True)
class Unaged:
    """Matrices as they were written, with all that decides what their cells hold later.

    The reference column of an array of `offset` cells ages with its rows, or with the first of its columns.

    Attributes:
        array: the hardware, with `age` 0.
        targets: [B, S, P, R, O, I] conductances that were to be written [S].
        written: [B, S, P, R, O, I] conductances just after the write [S], without faults.
        normals: [B, S, P, R, O, I] standard normals of drift; None if cells do not drift.
        fault_numbers: [1, S, P, R, O, I] uniform numbers of faults; None without faults.
        unit: [B or 1, R or 1, O or 1, 1] value of one code.
        reference: the reference columns of `offset` arrays, with P = 1 and as many O as column blocks; None for pairs.
        mismatch: errors of the converters; None if they are alike.
    """

    array: Crossbar
    targets: Tensor
    written: Tensor
    normals: Tensor | None
    fault_numbers: Tensor | None
    unit: Tensor
    reference: Unaged | None = None
    mismatch: Mismatch | None = None

    def at(self, ages: Tensor) -> Programmed:
        """What the cells hold when they are read.

        Args:
            ages: time since the write of each cell [s], float64 on the CPU: [B or 1, O, 1] or [B or 1, 1, I].
        """
        cell, by_cell = self.array.aged_cell, ages[:, None, None, None]
        g, before = self.written, None
        if self.normals is not None:
            g = drift.drift_by_age(g, self.targets, cell, self.normals, by_cell)
            before = self._held(self.written) if noise.remembers_writing(cell) else None
        digits = self._held(g)
        acting = self._acting(digits)
        std = None if acting is digits else self._read_std(digits, acting, before, ages[:, None])
        cells = Programmed(
            self.array, acting, None, self.unit, before, None, std, mismatch=self.mismatch, ages=ages[:, None]
        )
        if self.reference is None:
            return cells
        beside = self.reference.at(self._of_blocks(ages))
        reference_written = None if beside.written is None else beside.written[0]
        return replace(
            cells, reference=beside.digits[0], reference_written=reference_written, reference_ages=beside.ages
        )

    def _of_blocks(self, t: Tensor) -> Tensor:
        """Values [B, O or 1, I or 1] of the first column of each block of columns."""
        return t[:, :: self.array.columns]

    def _held(self, g: Tensor) -> Tensor:
        """Conductances [B, S, P, R, O, I] as digits [P, S, B, R, O, I], with faults."""
        cell = self.array.aged_cell
        if self.fault_numbers is not None:
            g = faults.apply_faults(g, cell, self.fault_numbers.expand(g.shape))
        return ((g - cell.g_min) / self.array.step).movedim(0, 2).transpose(0, 1)

    def _acting(self, digits: Tensor) -> Tensor:
        """Digits [P, S, B, R, O, I] less what wires lose; `digits` itself without wires."""
        if self.array.wires is None:
            return digits
        return torch.stack([act_through_wires(part, self.array) for part in digits.unbind(1)], dim=1)

    def _read_std(self, digits: Tensor, acting: Tensor, written: Tensor | None, ages: Tensor) -> Tensor | None:
        """`Programmed.read_std` of cells behind wires."""
        array = self.array
        if noise.exact_reads(array.cell):
            return None
        std = read_variance(Held(digits, written, None, ages), array)
        assert std is not None
        shares = [
            effective_shares(held, of, array) for held, of in zip(digits.unbind(1), acting.unbind(1), strict=True)
        ]
        return std.sqrt_().mul_(torch.stack(shares, dim=1))

    def where(self, mask: Tensor, other: Unaged) -> Unaged:
        """These cells where a mask [B or 1, O, 1] or [B or 1, 1, I] is true, and those of `other` elsewhere."""
        reference = self.reference
        if reference is not None and other.reference is not None:
            reference = reference.where(self._of_blocks(mask), other.reference)
        mask = mask[:, None, None, None].to(self.written.device)
        parts = [torch.where(mask, getattr(self, name), getattr(other, name)) for name in ("targets", "written")]
        normals = self.normals
        if normals is not None and other.normals is not None:
            normals = torch.where(mask, normals, other.normals)
        return replace(self, targets=parts[0], written=parts[1], normals=normals, reference=reference)


@torch.no_grad()
def write_unaged(values: Tensor, array: Crossbar, *, drifts: bool, **options: Unpack[WriteOptions]) -> Unaged:
    """Write values or codes into cells that will be read at several ages, with the random numbers of `write`.

    Args:
        values: [B, R, O, I] values for the option `codec`, or codes, as in `write`.
        array: the hardware, with `age` 0.
        drifts: True if the cells drift before they are read.
        options: see `WriteOptions`.

    Raises:
        BadInput: as in `write`.
    """
    request = crossbar.write_request(values, array, **options)
    if array.residual is None:
        by_slice = list(encoding.signed_digits(request.codes, array, request.slices))
        cells = _written(request, "cell", by_slice, drifts=drifts)
    else:
        cells = _written_residually(request, drifts=drifts)
    cells = replace(cells, mismatch=request.mismatch())
    if array.encoding != "offset":
        return cells
    by_slice = crossbar.reference_targets(request.codes, array, request.slices)
    return replace(cells, reference=_written(request, "reference", by_slice, drifts=drifts))


def _written(request: WriteRequest, columns: Columns, by_slice: list[Tensor], *, drifts: bool) -> Unaged:
    """Write digits [P, B, R, O, I] of each slice into cells, or into reference columns."""
    writer = request.writer(columns)
    return _stacked(request, [writer.write_unaged(digits, drifts=drifts) for digits in by_slice])


def _written_residually(request: WriteRequest, *, drifts: bool) -> Unaged:
    """Write values into cells that correct one another."""
    writer = request.writer("cell")
    write = partial(writer.write_unaged_and_read_back, drifts=drifts)
    return _stacked(request, [parts for _, parts in request.residual_slices(writer, write)][::-1])


def _stacked(request: WriteRequest, parts: list[UnagedSlice]) -> Unaged:
    """All slices of a matrix, from the least significant one up."""
    targets, written, normals, numbers = (
        None if column[0] is None else torch.stack(column).movedim(2, 0) for column in zip(*parts, strict=True)
    )
    assert targets is not None
    assert written is not None
    return Unaged(request.array, targets, written, normals, numbers, request.unit)


def one_factor(array: Crossbar, ages: Tensor) -> Tensor | None:
    """The factor by which drift multiplies all values of an array, for each age; None if cells differ in it.

    Args:
        array: the hardware.
        ages: time since the write [s], of any shape, float64.
    """
    if array.encoding != "differential" or array.wires is not None or faults.faulty(array.aged_cell):
        return None
    if mismatched(array) or distorts(array):
        return None
    return array.cell.drift.common_factor(ages)


def reads_age(cell: Cell, longest: float) -> bool:
    """True if read noise differs between cells that were just written and those of the longest age [s]."""
    if noise.exact_reads(cell):
        return False
    g = torch.linspace(cell.g_min, cell.g_max, 9, dtype=torch.float64)
    before = g.clone() if noise.remembers_writing(cell) else None
    new, old = (noise.read_std(g, cell, age=age, written=before) for age in (0.0, longest))
    return not torch.equal(new, old)
