"""Programming a matrix into crossbars: noise of the write, drift and faults are drawn here, once.

Conductances are carried in digit units, (G - G_min) / step, so that integers stay exact; siemens appear only where the
device models are called. Shapes: O outputs, I inputs, S slices, P polarities, C column blocks; `...` are matrices
(samples, heads) that share one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from ohmformer.array import counts, encoding
from ohmformer.array.spec import Crossbar
from ohmformer.device import drift, faults, noise
from ohmformer.errors import BadInput
from ohmformer.streams import SampleStreams, Stream, Streams

Major = Literal["outputs", "inputs"]


@dataclass(frozen=True)
class Programmed:
    """A matrix in crossbars of any number; immutable.

    Attributes:
        array: the hardware.
        cells: [P, S, ..., O, I] digits found in the cells, with all that writing, drift and faults did to them.
        reference: [S, ..., C, I] digits found in the reference columns of `offset` arrays; None in pairs.
        unit: value of one code; broadcasts against [..., O, I].
    """

    array: Crossbar
    cells: Tensor
    reference: Tensor | None
    unit: Tensor

    @property
    def slices(self) -> int:
        """Slices in use."""
        return self.cells.shape[1]

    @property
    def outputs(self) -> int:
        """Columns of the matrix, over all column blocks."""
        return self.cells.shape[-2]

    @property
    def inputs(self) -> int:
        """Rows of the matrix, over all row blocks."""
        return self.cells.shape[-1]

    def reference_by_output(self, values: Tensor) -> Tensor:
        """[..., C, ?] values of reference columns, repeated for the outputs that share them: [..., O, ?]."""
        return values.repeat_interleave(self.array.columns, dim=-2)[..., : self.outputs, :]


def program(
    w: Tensor,
    array: Crossbar,
    *,
    stream: Streams | int = 0,
    w_range: Tensor | None = None,
    fault_stream: Stream | None = None,
    major: Major = "outputs",
) -> Programmed:
    """Write the matrix w[..., O, I] into crossbars, so that `mvm(x, ...)` gives about x @ w.T.

    Args:
        w: real values; leading dimensions are matrices that are written side by side.
        array: the hardware.
        stream: what the write noise belongs to (an integer is the stream of that seed); `SampleStreams` where the first
            axis of w is the samples of a batch.
        w_range: the value that the largest code stands for, broadcasting against w; by default `full_range`.
        fault_stream: what the faults belong to (a chip); by default `stream`. They stay when noise changes.
        major: whether the stream runs along outputs or inputs first: the axis that is written piece by piece.

    Raises:
        BadInput: w holds NaN or infinity.
    """
    w_range = encoding.full_range(w, array) if w_range is None else w_range
    codes = encoding.quantise(w, array, w_range)
    return write(codes, array, stream=stream, w_range=w_range, fault_stream=fault_stream, major=major)


def write(
    codes: Tensor,
    array: Crossbar,
    *,
    stream: Streams | int = 0,
    w_range: Tensor | float = 1.0,
    max_code: int | None = None,
    fault_stream: Stream | None = None,
    major: Major = "outputs",
) -> Programmed:
    """Write integer codes [..., O, I]; `max_code` bounds their magnitude, so that empty slices need no cells.

    The other arguments are those of `program`.
    """
    stream = Stream(stream) if isinstance(stream, int) else stream
    slices = array.slices(max_code)
    target = encoding.digits(codes, array, slices)
    writer = _Writer(array, stream, fault_stream or stream, major)
    cells = writer.found(target, "cell")
    reference = None
    if array.encoding == "offset":
        blocks = -(-codes.shape[-2] // array.columns)
        shift = torch.tensor(encoding.reference_digits(array, slices)).to(codes)
        shape = (slices, *codes.shape[:-2], blocks, codes.shape[-1])
        shift = shift.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
        reference = writer.found(shift.unsqueeze(0), "reference")[0]
    counter = counts.current()
    if counter is not None:
        counter.cell_writes += cells.numel() + (0 if reference is None else reference.numel())
    unit = torch.as_tensor(w_range).to(codes) / array.max_code
    return Programmed(array, cells, reference, torch.where(unit > 0, unit, 1.0 / array.max_code))


@dataclass(frozen=True)
class _Writer:
    """What happens to target digits on their way into cells and until they are read."""

    array: Crossbar
    stream: Streams
    fault_stream: Streams
    major: Major

    def found(self, target: Tensor, what: str) -> Tensor:
        """Target digits [P, S, ..., O, I] to the digits found in the cells."""
        cell, age = self.array.cell, self.array.age
        if noise.silent(cell) and not drift.drifts(cell, age) and not faults.faulty(cell):
            return target
        g_target = cell.g_min + self.array.step * target
        g = g_target
        if not noise.silent(cell):
            g = noise.write(g, cell, self._normal(target, what, "write", shared=noise.silent_at_g_min(cell)))
        if drift.drifts(cell, age):
            g = drift.drift(g, g_target, cell, self._normal(target, what, "drift", shared=False), age=age)
        if faults.faulty(cell):
            g = faults.stick(g, cell, self._fault_numbers(target, what))
        return (g - cell.g_min) / self.array.step

    def _normal(self, like: Tensor, what: str, why: str, *, shared: bool) -> Tensor:
        """Standard normals [P, S, ..., O, I]; `shared` where only one half of a pair can show its noise.

        The stream runs over slices first, so that a slice that is left out shifts nothing.
        """
        P, S, *matrices, O, I = like.shape
        P = 1 if shared else P
        inner = (O, I) if self.major == "outputs" else (I, O)
        stream = self.stream.child(what, why)
        if isinstance(stream, SampleStreams):
            B, *heads = matrices
            drawn = stream.normal(B, S, P, *heads, *inner, like=like)
            drawn = drawn.permute(2, 1, 0, *range(3, drawn.dim()))
        else:
            drawn = stream.normal(S, P, *matrices, *inner, like=like).transpose(0, 1)
        return drawn if self.major == "outputs" else drawn.transpose(-2, -1)

    def _fault_numbers(self, like: Tensor, what: str) -> Tensor:
        """Uniform numbers [P, S, heads..., O, I] that belong to physical cells: the same for every sample."""
        if not isinstance(self.fault_stream, Stream):
            raise BadInput("faults belong to a chip, not to samples; give program a fault_stream")
        P, S, *matrices, O, I = like.shape
        heads = matrices[1:] if isinstance(self.stream, SampleStreams) else matrices
        R, C = self.array.rows, self.array.columns if what == "cell" else 1
        row_blocks, column_blocks = -(-I // R), -(-O // C)
        arrays = product(range(P), range(S), range(torch.Size(heads).numel()), range(column_blocks), range(row_blocks))
        maps = [self.fault_stream.child(what, "fault", *where).uniform(C, R, like=like) for where in arrays]
        u = torch.stack(maps).reshape(P, S, *heads, column_blocks, row_blocks, C, R)
        u = u.transpose(-3, -2).reshape(P, S, *heads, column_blocks * C, row_blocks * R)[..., :O, :I]
        return u.unsqueeze(2) if isinstance(self.stream, SampleStreams) else u
