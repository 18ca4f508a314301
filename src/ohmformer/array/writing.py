"""The way of digits into cells: write noise, drift and faults, in siemens, with random streams of their own.

Shapes: O outputs, I inputs, P polarities; `...` are matrices (samples, heads) that share one call.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Literal

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.spec import Crossbar
from ohmformer.device import drift, faults, noise, write_verify
from ohmformer.device.check import check_cell
from ohmformer.device.spec import WriteVerify
from ohmformer.errors import BadInput
from ohmformer.streams import RandomSource, SampleStreams, Stream, Streams

Major = Literal["outputs", "inputs"]
What = Literal["cell", "reference"]


def exact(array: Crossbar) -> bool:
    """Whether cells hold what was written."""
    return noise.silent(array.cell) and not drift.drifts(array.cell, array.age) and not faults.faulty(array.cell)


def one_sided(array: Crossbar) -> bool:
    """Whether the unused half of a pair stays at G_min exactly, so that a magnitude and a sign say all."""
    cell = array.cell
    still = noise.silent_at_g_min(cell) and not drift.drifts(cell, array.age) and not faults.faulty(cell)
    return array.encoding == "differential" and still


class Writer:
    """Writes one slice after the other, so that slices that are left out shift no random number.

    Args:
        array: the hardware.
        what: cells, or the reference columns of `offset` arrays.
        stream: what write noise and drift belong to.
        fault_stream: what faults belong to.
        major: whether random numbers run along outputs or inputs first.
        device: where tensors live.
    """

    def __init__(
        self, array: Crossbar, what: What, stream: Streams, fault_stream: Streams, major: Major, device: torch.device
    ) -> None:
        self.array, self.what, self.major, self.stream = array, what, major, stream
        check_cell(array.cell, array.age)
        self.write_numbers = stream.child(what, "write").open(device)
        self.drift_numbers = stream.child(what, "drift").open(device)
        if faults.faulty(array.cell) and not isinstance(fault_stream, Stream):
            raise BadInput("faults belong to a chip, not to samples; give program a fault_stream")
        self.fault_stream = fault_stream
        self.slice = 0

    def found(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Target digits [P, ..., O, I] of the next slice to the digits found in its cells.

        Also, where read noise asks for them, the digits found just after writing.
        """
        array, cell = self.array, self.array.cell
        self.slice += 1
        if exact(array):
            return target, None
        g_target = (array.step * target).add_(cell.g_min)
        g, written = g_target, None
        if not noise.silent(cell):
            # Of a pair that is silent at G_min only one half shows its noise, so both may share the numbers.
            shared = noise.silent_at_g_min(cell)
            eps = self._normal(self.write_numbers, target, 1 if shared else len(target))
            g = noise.write(g, cell, eps if array.verify is None else self._verified(eps, target, array.verify))
        if drift.drifts(cell, array.age):
            written = self._digits(g.clone()) if noise.remembers_writing(cell) else None
            g = drift.drift(g, g_target, cell, self._normal(self.drift_numbers, target, len(target)), age=array.age)
        if faults.faulty(cell):
            u = self._fault_numbers(target)
            g = faults.stick(g, cell, u)
            written = (
                None if written is None else self._digits(faults.stick(cell.g_min + array.step * written, cell, u))
            )
        return self._digits(g), written

    def normal(self, like: Tensor) -> Tensor:
        """The next standard normals of write noise, of the shape [P, ..., O, I] of `like`."""
        return self._normal(self.write_numbers, like, len(like))

    def _verified(self, eps: Tensor, target: Tensor, how: WriteVerify) -> Tensor:
        """What is kept of the noise of repeated writes; of whole digits there are few different ones."""
        array, writes = self.array, self.array.writes(self.slice - 1)
        which = target.long()
        whole = torch.equal(which.to(target), target)
        g = encoding.levels(array, target.device) if whole else array.cell.g_min + array.step * target.double()
        return write_verify.kept(eps, g, array.cell, how.tolerance, writes, which=which if whole else None)

    def _digits(self, g: Tensor) -> Tensor:
        """Conductances [S] to digits, in place."""
        return g.sub_(self.array.cell.g_min).div_(self.array.step)

    def _normal(self, source: RandomSource, like: Tensor, P: int) -> Tensor:
        """The next standard normals [P, ..., O, I]."""
        _, *matrices, O, I = like.shape
        inner = (O, I) if self.major == "outputs" else (I, O)
        if source.by_sample:
            B, *heads = matrices
            drawn = source.normal(B, P, *heads, *inner, like=like).transpose(0, 1)
        else:
            drawn = source.normal(P, *matrices, *inner, like=like)
        return drawn if self.major == "outputs" else drawn.transpose(-2, -1)

    def _fault_numbers(self, like: Tensor) -> Tensor:
        """Uniform numbers [P, heads..., O, I] of physical cells: the same for every sample and matrix size."""
        assert isinstance(self.fault_stream, Stream)
        P, *matrices, O, I = like.shape
        by_sample = isinstance(self.stream, SampleStreams)
        heads = matrices[1:] if by_sample else matrices
        R, C = self.array.rows, self.array.columns if self.what == "cell" else 1
        row_blocks, column_blocks = -(-I // R), -(-O // C)
        arrays = product(range(P), range(prod(heads)), range(column_blocks), range(row_blocks))
        stream = self.fault_stream.child(self.what, "fault", self.slice - 1)
        u = torch.stack([stream.child(*where).uniform(C, R, like=like) for where in arrays])
        u = u.reshape(P, *heads, column_blocks, row_blocks, C, R).transpose(-3, -2)
        u = u.reshape(P, *heads, column_blocks * C, row_blocks * R)[..., :O, :I]
        return u.unsqueeze(1) if by_sample else u
