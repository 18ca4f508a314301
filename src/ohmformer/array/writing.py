"""Writing digits into cells: write noise, write-verify, drift and faults, in siemens, each with its own random stream.

Shapes: P polarities, O outputs, I inputs, R rows and C columns of one array; `...` are matrices that share one call,
such as samples and heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import product
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.chunking import pieces
from ohmformer.array.spec import Crossbar
from ohmformer.array.wires.effective import act_through_wires, effective_shares
from ohmformer.device import drift, faults, noise, write_verify
from ohmformer.device.check import check_cell
from ohmformer.device.spec import WriteVerify
from ohmformer.errors import BadInput
from ohmformer.streams import RandomSource, SampleStreams, Stream, Streams
from ohmformer.streams.counted_source import CountedSource, Undrawn

Major = Literal["outputs", "inputs"]
"""The axis of a matrix along which random numbers run first."""
Columns = Literal["cell", "reference"]
"""Columns that hold values, or the reference columns of `offset` arrays."""
LARGE = 2**19
"""Cells from which the temporary tensors of a write do not fit into a core's cache."""


def exact(array: Crossbar) -> bool:
    """True if cells hold exactly the digits that are written: even levels, no write noise, drift, faults or wear.

    Of residual writing, the read-backs must be free of noise too, since they decide the digits.
    """
    cell = array.aged_cell
    if array.residual is not None and not noise.exact_reads(cell):
        return False
    still = not drift.drifts(cell, array.age) and not faults.faulty(cell)
    return still and noise.silent(cell) and not cell.uneven and not array.saturates


def one_sided(array: Crossbar) -> bool:
    """True for pairs whose unused half stays at G_min exactly, so that writing the magnitude is enough."""
    cell = array.aged_cell
    still = noise.silent_at_g_min(cell) and not drift.drifts(cell, array.age) and not faults.faulty(cell)
    lowest = array.cell.window(array.writes)[0]
    return array.encoding == "differential" and still and array.wires is None and lowest == 0


def has_faults(array: Crossbar) -> bool:
    """True if cells may be stuck, by faults or by wear."""
    return faults.faulty(array.aged_cell)


UnagedSlice = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
"""What decides what the cells of one slice hold later, see `Writer.write_unaged`."""


class Held(NamedTuple):
    """What cells hold, such as those of one slice, in digit units: [P, ..., O, I] each.

    Attributes:
        digits: after writing, drift and faults, less what wires lose.
        written: before drift and the loss in wires; None unless there is drift and read noise depends on it.
        read_std: standard deviation of one read at the ends of the wires; None unless wires lose voltage and reads are
            noisy.
        ages: [..., O or 1, I or 1] age of each cell when it is read [s], float64 on the CPU; None for `array.age`.
    """

    digits: Tensor
    written: Tensor | None = None
    read_std: Tensor | None = None
    ages: Tensor | None = None

    def at(self, index: int) -> Held:
        """One entry of the first axis of all tensors but `ages`, which has no such axis."""
        digits, written, std, ages = self
        return Held(
            digits[index], None if written is None else written[index], None if std is None else std[index], ages
        )


class Writer:
    """Writes the slices of one matrix one after the other.

    Random numbers are drawn slice by slice, so a slice that is left out does not change those of the slices below it.

    Args:
        array: the hardware.
        columns: cells, or the reference columns of `offset` arrays.
        stream: key of write noise and drift.
        fault_stream: key of faults.
        major: the axis along which random numbers run first.
        device: where the tensors live.

    Raises:
        BadInput: a kind of noise or drift from outside the package fails its check, or faults are keyed by samples.
    """

    def __init__(
        self,
        array: Crossbar,
        columns: Columns,
        stream: Streams,
        fault_stream: Streams,
        major: Major,
        device: torch.device,
    ) -> None:
        self.cell = cell = array.aged_cell
        self.array, self.columns, self.major, self.stream, self.device = array, columns, major, stream, device
        check_cell(cell, array.age)
        self.write_numbers = stream.child(columns, "write").open(device)
        self.step = array.step
        # If a cell at G_min is exact, only the used half of a pair is noisy: both halves may share the numbers.
        self.noisy, self.shared = not noise.silent(cell), noise.silent_at_g_min(cell)
        self.drifts, self.faulty = drift.drifts(cell, array.age), faults.faulty(cell)
        self.saturates = array.saturates
        if self.faulty and not isinstance(fault_stream, Stream):
            raise BadInput("faults belong to a chip, not to samples; give program a fault_stream")
        self.fault_stream = fault_stream
        self.next_slice = 0
        # A read-back of residual writing sees what cells hold before they drift.
        self.keeps_written = self.drifts and (noise.remembers_writing(cell) or array.residual is not None)

    @cached_property
    def drift_numbers(self) -> RandomSource:
        """The source of numbers of drift, opened where cells drift."""
        return self.stream.child(self.columns, "drift").open(self.device)

    def write(self, digits: Tensor) -> Held:
        """Write the next slice, from the least significant one up.

        Args:
            digits: [P, ..., O, I] to be written; not changed.

        Returns:
            What the cells hold; without any error its digits are the same tensor.
        """
        array, cell, s, written = self.array, self.cell, self.next_slice, None
        self.next_slice += 1
        if self.noisy or self.drifts or self.faulty or cell.uneven or self.saturates:
            g = self._after_write(digits, s)
            if self.drifts:
                written = self._to_digits_(g.clone()) if self.keeps_written else None
                g_target = encoding.target_conductances(digits, array)
                g = drift.drift(g, g_target, cell, self._normal(self.drift_numbers, digits, len(digits)), age=array.age)
            if self.faulty:
                u = self._fault_numbers(digits, s)
                g = faults.apply_faults(g, cell, u)
                if written is not None:
                    written = self._to_digits_(faults.apply_faults(cell.g_min + self.step * written, cell, u))
            digits = self._to_digits_(g)
        if array.wires is None:
            return Held(digits, written)
        acting = act_through_wires(digits, array)
        return Held(acting, written, self._read_std(digits, acting, written))

    def _read_std(self, digits: Tensor, acting: Tensor, written: Tensor | None) -> Tensor | None:
        """Standard deviation, in digits, of one read at the ends of the wires; None if reads are exact.

        The error of a cell's conductance is lost in the wires like the conductance itself.

        Args:
            digits: [P, ..., O, I] that the cells hold.
            acting: the same, less what wires lose.
            written: `digits` before drift, if read noise depends on them.
        """
        cell, g_min = self.cell, self.cell.g_min
        if noise.exact_reads(cell):
            return None
        g_written = None if written is None else g_min + self.step * written
        std = noise.read_std(g_min + self.step * digits, cell, age=self.array.age, written=g_written)
        return std.div_(self.step).mul_(effective_shares(digits, acting, self.array))

    def _after_write(self, digits: Tensor, s: int) -> Tensor:
        """Conductances [S] just after the digits of slice s are written: a new tensor."""
        array = self.array
        if not self.noisy:
            return encoding.target_conductances(digits, array)
        eps = self._normal(self.write_numbers, digits, 1 if self.shared else len(digits))
        eps = eps if array.write_verify is None else self._verified(eps, digits, array.write_verify, s)
        if digits.numel() < LARGE or (eps.shape, eps.stride()) != (digits.shape, digits.stride()):
            return noise.write(encoding.target_conductances(digits, array), self.cell, eps)
        for some_digits, some_eps in pieces(digits, eps):
            some_eps.copy_(noise.write(encoding.target_conductances(some_digits, array), self.cell, some_eps))
        return eps

    def write_and_read_back(self, digits: Tensor, s: int) -> tuple[Held, Tensor]:
        """Write slice s, in any order of slices.

        Args:
            digits: [2, ..., O, I] to be written; not changed.
            s: the slice.

        Returns:
            What the cells hold, as `write` returns it; and the digits [2, ..., O, I] just after the write.
        """
        self.next_slice = s
        held = self.write(digits)
        if held.written is None:
            return held, held.digits
        return (held if noise.remembers_writing(self.cell) else held._replace(written=None)), held.written

    def write_unaged(self, digits: Tensor, *, drifts: bool) -> UnagedSlice:
        """Write the next slice, and return all that decides what its cells hold later.

        Args:
            digits: [P, ..., O, I] to be written; not changed.
            drifts: True if the cells drift before they are read.

        Returns:
            Each [P, ..., O, I]: conductances to be written [S]; conductances just after the write [S], without faults;
            standard normals of drift, or None; uniform numbers of faults, or None.
        """
        s = self.next_slice
        self.next_slice += 1
        g_target, g = encoding.target_conductances(digits, self.array), self._after_write(digits, s)
        normals = self._normal(self.drift_numbers, digits, len(digits)) if drifts else None
        return g_target, g, normals, self._fault_numbers(digits, s) if self.faulty else None

    def write_unaged_and_read_back(self, digits: Tensor, s: int, *, drifts: bool) -> tuple[UnagedSlice, Tensor]:
        """`write_and_read_back` of slice s, with what `write_unaged` returns."""
        self.next_slice = s
        parts = self.write_unaged(digits, drifts=drifts)
        _, g, _, u = parts
        return parts, self._to_digits_(g.clone() if u is None else faults.apply_faults(g, self.cell, u))

    def normal(self, like: Tensor, source: RandomSource | None = None) -> Tensor:
        """The next standard normals, by default of write noise, of the shape [P, ..., O, I] of `like`."""
        return self._normal(source or self.write_numbers, like, len(like))

    def normals_of_slices(self, like: Tensor, slices: int) -> Tensor:
        """The standard normals of write noise of the next slices at once, by the counter-based generator.

        Args:
            like: [P, ..., O, I].
            slices: S.

        Returns:
            [S, P, ..., O, I], where entry s has the numbers that the s-th `normal(like)` would return.
        """
        source = self.write_numbers
        assert isinstance(source, CountedSource)
        P, *matrices, O, I = like.shape
        inner = (O, I) if self.major == "outputs" else (I, O)
        if source.by_sample:
            B, *heads = matrices
            drawn = source.normals(slices, B, P, *heads, *inner, like=like).transpose(1, 2)
        else:
            drawn = source.normals(slices, P, *matrices, *inner, like=like)
        return drawn if self.major == "outputs" else drawn.transpose(-2, -1)

    def undrawn_of_slices(
        self, shape: Sequence[int], slices: int, halves: int, source: RandomSource | None = None
    ) -> tuple[Undrawn, int]:
        """The standard normals of the next slices, by default of write noise, for a loop that draws them.

        Args:
            shape: of the codes, with the axes of the matrix in the order in which numbers run.
            slices: how many.
            halves: how many polarities have numbers of their own.
            source: of the numbers, by the counter-based generator.

        Returns:
            The numbers of [slices, halves, *shape]; of samples [slices, B, halves, ...]. And the number of keys.
        """
        source = source or self.write_numbers
        assert isinstance(source, CountedSource)
        if not source.by_sample:
            return source.undrawn_normals(slices, halves, *shape), 1
        B, *rest = shape
        return source.undrawn_normals(slices, B, halves, *rest), B

    def _verified(self, eps: Tensor, digits: Tensor, how: WriteVerify, s: int) -> Tensor:
        """Standard normals of single writes, turned into those of verified writes of slice s.

        Whole digits have few distinct targets, so each distinct one is computed once.
        """
        array, writes = self.array, self.array.max_writes(s)
        index = digits.long()
        whole = torch.equal(index.to(digits), digits)
        g = (
            encoding.level_conductances(array, digits.device)
            if whole
            else encoding.target_conductances(digits.double(), array)
        )
        return write_verify.verified_eps(eps, g, self.cell, how.tolerance, writes, index=index if whole else None)

    def _to_digits_(self, g: Tensor) -> Tensor:
        """Conductances [S] to digits, in place."""
        for (some,) in pieces(g):
            some.sub_(self.cell.g_min).div_(self.step)
        return g

    def _normal(self, source: RandomSource, like: Tensor, P: int) -> Tensor:
        """The next standard normals [P, ..., O, I] of a source; `like` gives all sizes but P."""
        _, *matrices, O, I = like.shape
        inner = (O, I) if self.major == "outputs" else (I, O)
        if source.by_sample:
            B, *heads = matrices
            drawn = source.normal(B, P, *heads, *inner, like=like).transpose(0, 1)
        else:
            drawn = source.normal(P, *matrices, *inner, like=like)
        return drawn if self.major == "outputs" else drawn.transpose(-2, -1)

    def _fault_numbers(self, like: Tensor, s: int) -> Tensor:
        """Uniform numbers of the physical cells of slice s, for every sample and matrix size the same.

        They are drawn array by array, since a fault belongs to a cell of an array and not to an element of a matrix.

        Returns:
            [P, ..., O, I]; the sample axis, if any, has size 1.
        """
        assert isinstance(self.fault_stream, Stream)
        P, *matrices, O, I = like.shape
        by_sample = isinstance(self.stream, SampleStreams)
        heads = matrices[1:] if by_sample else matrices
        R, C = self.array.rows, self.array.columns if self.columns == "cell" else 1
        row_blocks, column_blocks = -(-I // R), -(-O // C)
        arrays = product(range(P), range(prod(heads)), range(column_blocks), range(row_blocks))
        stream = self.fault_stream.child(self.columns, "fault", s)
        of_arrays = SampleStreams(tuple(stream.child(*position) for position in arrays))
        u = of_arrays.uniform(len(of_arrays.streams), C, R, like=like)
        u = u.reshape(P, *heads, column_blocks, row_blocks, C, R).transpose(-3, -2)
        u = u.reshape(P, *heads, column_blocks * C, row_blocks * R)[..., :O, :I]
        return u.unsqueeze(1) if by_sample else u
