"""A matrix in the cells of crossbars, and what of it is converted.

A cell's conductance is carried in digit units, (G - G_min) / step, so integers stay exact. Siemens appear only where
the device models are called.

Shapes: P polarities, S slices (copies included), O outputs, I inputs, C column blocks (reference columns); `...` are
matrices that share one call, such as samples and heads.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from ohmformer.array.chunking import pieces
from ohmformer.array.peripherals.mismatch import Mismatch
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import Held
from ohmformer.device import noise

T = TypeVar("T")


@dataclass(frozen=True)
class Keeps:
    """Something immutable that keeps what was computed from it."""

    _kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned when this was first asked for with a key."""
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found


@dataclass(frozen=True)
class Side(Keeps):
    """Columns of one slice that are converted together: one half of a pair, or the difference of both halves.

    Attributes:
        sign: +1 or -1, the sign of the converted result in the sum.
        digits: [..., O or C, I], or differences of digits if the subtraction is analog.
        variance: of `digits` in one read at unit input, in digits squared; None without read noise.
        shared_variance: [..., C, I] likewise of reference columns that were subtracted before the conversion.
    """

    sign: float
    digits: Tensor
    variance: Tensor | None
    shared_variance: Tensor | None = None


@dataclass(frozen=True)
class Programmed:
    """A matrix written into crossbars; immutable.

    Attributes:
        array: the hardware.
        digits: [P, S, ..., O, I] that the cells hold after writing, drift and faults.
        reference: [S, ..., C, I] digits that the reference columns of `offset` arrays hold; None for pairs.
        unit: [..., O or 1, 1] value of one code.
        written: `digits` before drift; None unless read noise depends on it.
        reference_written: `reference` before drift; None unless read noise depends on it.
        read_std: of one read of the cells, in digits, if wires lose voltage and reads are noisy; otherwise None.
        mismatch: errors of the converters; None if they are alike.
        ages: [..., O or 1, I or 1] age of each cell when it is read [s], float64 on the CPU; None for `array.age`.
        reference_ages: [..., C or 1, I or 1] likewise of reference columns.
    """

    array: Crossbar
    digits: Tensor
    reference: Tensor | None
    unit: Tensor
    written: Tensor | None = None
    reference_written: Tensor | None = None
    read_std: Tensor | None = None
    mismatch: Mismatch | None = None
    ages: Tensor | None = None
    reference_ages: Tensor | None = None

    @property
    def minus_ages(self) -> Tensor | None:
        """`ages` of the cells that are subtracted."""
        return self.ages if self.reference is None else self.reference_ages

    @property
    def slices(self) -> int:
        """Slices in use, copies included."""
        return self.digits.shape[1]

    @property
    def outputs(self) -> int:
        """Columns of the matrix, over all column blocks."""
        return self.digits.shape[-2]

    @property
    def inputs(self) -> int:
        """Rows of the matrix, over all row blocks."""
        return self.digits.shape[-1]

    def by_output(self, values: Tensor, dim: int) -> Tensor:
        """Values of reference columns (C along `dim`), repeated for the outputs that share them (O along `dim`)."""
        return values.repeat_interleave(self.array.columns, dim=dim).narrow(dim, 0, self.outputs)

    @cached_property
    def sides(self) -> tuple[tuple[Side, ...], ...]:
        """What is converted, by slice.

        With digital subtraction both halves of a pair (or a column and its reference), with analog subtraction their
        difference.
        """
        return tuple(self._sides(s) for s in range(self.slices))

    def _sides(self, s: int) -> tuple[Side, ...]:
        written, std = (None if t is None else t[:, s] for t in (self.written, self.read_std))
        held = Held(self.digits[:, s], written, std, self.ages)
        halves = [held.at(0), held.at(1) if self.reference is None else self._reference(s)]
        (plus, *_), (minus, *_) = halves
        variance, minus_variance = (read_variance(half, self.array) for half in halves)
        if self.array.subtract != "analog":
            return (Side(1.0, plus, variance), Side(-1.0, minus, minus_variance))
        if self.reference is not None:
            return (Side(1.0, plus - self.by_output(minus, -2), variance, minus_variance),)
        both = None if variance is None or minus_variance is None else variance + minus_variance
        return (Side(1.0, plus - minus, both),)

    def _reference(self, s: int) -> Held:
        """What the reference columns of slice s hold."""
        assert self.reference is not None
        written = None if self.reference_written is None else self.reference_written[s]
        return Held(self.reference[s], written, None, self.reference_ages)


def read_variance(held: Held, array: Crossbar) -> Tensor | None:
    """Variance of one read of cells, in digits squared.

    Args:
        held: what the cells hold, of any shape.
        array: the hardware.

    Returns:
        A new tensor of the same shape; None if reads are exact.
    """
    if noise.exact_reads(array.cell):
        return None
    if held.read_std is not None:
        return held.read_std.square()
    cell, step, variance = array.cell, array.step, torch.empty_like(held.digits)
    known = (variance, held.digits) if held.written is None else (variance, held.digits, held.written)
    for some, *some_digits in pieces(*known) if held.ages is None else [known]:
        g, g_written, *_ = *(cell.g_min + step * digits for digits in some_digits), None
        if held.ages is None:
            std = noise.read_std(g, cell, age=array.age, written=g_written)
        else:
            std = noise.read_std_by_age(g, cell, held.ages, written=g_written)
        some.copy_(std.div_(step).square_())
    return variance
