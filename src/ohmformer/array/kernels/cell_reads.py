"""Currents of columns whose devices are read one by one, by a compiled loop on the CPU.

Shapes: M input vectors, O outputs, R rows of one block; `...` are matrices that share one call, such as samples and
heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ohmformer.streams import SampleStreams, Stream, Streams
from ohmformer.streams.backends import compiles
from ohmformer.streams.places import COLUMNS


def fusible(codes: Tensor, stream: Streams) -> bool:
    """True if `currents` supports reads of inputs with these keys: in float32, by streams that chose compiled kernels,
    without padding."""
    if codes.dtype is not torch.float32 or not codes.numel() or not compiles(codes.device, stream.kernels):
        return False
    if type(stream) is SampleStreams:
        return stream.lengths is None and codes.dim() > 2 and len(stream.streams) == codes.shape[0]
    return type(stream) is Stream


def currents(applied: Tensor, digits: Tensor, spread: Tensor, streams: Sequence[Stream | SampleStreams]) -> Tensor:
    """Column currents [..., M, O] of reads where every device has noise of its own, with the numbers of the plain code.

    Args:
        applied: what rows get [..., M, R].
        digits: of the devices [..., O, R].
        spread: standard deviation of one read of each device [..., O, R].
        streams: key of the reads of each of the M vectors, for devices [..., O, R]; all are `fusible`.
    """
    from ohmformer.array.kernels import cell_reads_compiled

    lead = torch.broadcast_shapes(applied.shape[:-2], digits.shape[:-2])
    (M, R), O, N = applied.shape[-2:], digits.shape[-2], lead.numel()
    seeds = torch.tensor([_seeds(stream) for stream in streams], dtype=torch.int64)
    rows = torch.zeros(*seeds.shape, COLUMNS, dtype=torch.int64)
    each = N // seeds.shape[1] * O * R
    rows[..., 0], rows[..., 3], rows[..., 4], rows[..., 5] = seeds, each, each, 1
    rows[..., 2] = torch.arange(seeds.numel()).view(seeds.shape) * each
    same = digits.shape[:-2].numel() == 1
    matrices = [(t if same else t.expand(*lead, O, R)).reshape(-1, O, R).contiguous() for t in (digits, spread)]
    vectors = applied.expand(*lead, M, R).movedim(-2, 0).reshape(-1, R).contiguous()
    out = applied.new_empty(M * N, O)
    arrays = (t.numpy() for t in (out, vectors, *matrices, rows.view(-1, COLUMNS)))
    cell_reads_compiled.currents(*arrays, 0)
    return out.view(M, *lead, O).movedim(0, -2)


def _seeds(stream: Stream | SampleStreams) -> tuple[int, ...]:
    """The seeds of the numbers of one vector, whose parts of a tensor follow one another."""
    return (stream.seed,) if isinstance(stream, Stream) else stream.seeds
