"""Products of input codes with matrices on the matrix units of a CPU, see `tiles_amx`.

Codes are exact, and numbers of a matrix to 2^-24 of themselves. Squares of codes and variances of cells are rounded to
one number of bfloat16, each by at most 2^-8 of itself: the standard deviation of a read is off by at most 0.4 %. Each
result has the same bits in any batch, since it is the same sequence of sums.

Shapes: M input vectors, O outputs, I inputs, R rows of a block, N matrices that share one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from ohmformer.array.kernels.scratch import scratch
from ohmformer.array.spec import Crossbar

LARGEST = 256
"""The largest code: bfloat16 holds all whole numbers up to it."""
EDGE = 32
"""Rows or columns, and inputs, that a factor is padded to; see `tiles_amx.EDGE`."""
PARTS, VARIANCE_PARTS = 3, 1
"""Numbers of bfloat16 that hold one number of a matrix, and one variance."""
TILES = np.zeros(64, np.uint8)
TILES[0] = 1  # the palette
TILES[16:32] = (64, 0) * 8  # bytes of a row of each tile
TILES[48:56] = 16  # rows of each tile


def exact(array: Crossbar, *, signed: bool, converted: bool) -> bool:
    """True if one number of bfloat16 holds what an array multiplies.

    Args:
        array: the hardware.
        signed: True if inputs have both signs.
        converted: True if each input cycle has conversions of its own: bits are then multiplied in place of codes.
    """
    return (converted and array.inputs.kind == "bit_serial") or array.max_input(signed=signed) <= LARGEST


@dataclass(frozen=True)
class Factor:
    """A factor of a product, in tiles.

    Attributes:
        data: the tiles, as any numbers of 4 bytes; the first axis is that of the matrices.
        shape: N, its rows (M) or columns (O), and I.
        rows: R.
        parts: numbers of bfloat16 for each number.
    """

    data: Tensor
    shape: tuple[int, int, int]
    rows: int
    parts: int

    @property
    def steps(self) -> int:
        """Steps of 32 inputs in a row block."""
        return -(-min(self.rows, self.shape[2]) // EDGE)

    @property
    def whole(self) -> int:
        """Steps of all row blocks."""
        return self.data.shape[2]

    @property
    def address(self) -> int:
        """Of the tiles."""
        return self.data.data_ptr()

    @property
    def between(self) -> int:
        """Bytes from one matrix to the next; 0 if there is only one."""
        return 4 * self.data.stride(0) if len(self.data) > 1 else 0


def _empty(shape: tuple[int, ...], rows: int, parts: int, name: str | None) -> Tensor:
    """Memory for a factor: [N, M or O, parts, steps] in tiles; that of a name is used again."""
    N, edge, I = shape
    steps = -(-I // rows) * -(-min(rows, I) // EDGE)
    size = torch.Size((N, -(-edge // EDGE), steps, parts, EDGE, EDGE // 2))
    return torch.empty(size) if name is None else scratch(name, size)


def left(codes: Tensor, rows: int, *, squared: bool = False) -> Factor:
    """Input codes [N, M, I], or their squares, as the left factor; it holds until this thread asks for another one."""
    from ohmformer.array.kernels.amx import tiles_amx

    shape = (codes.shape[0], codes.shape[1], codes.shape[2])
    data = _empty(shape, rows, 1, "squares in tiles" if squared else "codes in tiles")
    codes = codes.contiguous()
    sizes: NDArray[np.int64] = np.array((*shape, data.shape[2]), np.int64)
    tiles_amx.pack_left(data.data_ptr(), codes.data_ptr(), sizes, rows, squared)
    return Factor(data, shape, rows, 1)


def right(matrix: Tensor, rows: int, parts: int, factor: float = 1.0) -> Factor:
    """A matrix [N, O, I] times a number, as the right factor."""
    from ohmformer.array.kernels.amx import tiles_amx

    shape = (matrix.shape[0], matrix.shape[1], matrix.shape[2])
    data = _empty(shape, rows, parts, None)
    pairs = data.numpy().view(np.uint32).reshape(*data.shape[:4], 2, 16, 16)
    tiles_amx.pack_right(pairs, matrix.detach().numpy(), rows, factor)
    return Factor(data, shape, rows, parts)


def multiply(x: Factor, w: Factor, out: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ w.T of factors with a single row block.

    Args:
        x: left factor.
        w: right factor in `PARTS` parts, of one matrix or of as many as x has.
        out: results [..., M, O] without gaps, which are written.
        bias: added to the results [O].

    Returns:
        `out`.
    """
    from ohmformer.array.kernels.amx import tiles_amx

    (N, M, _), (_, O, _) = x.shape, w.shape
    begin = None if bias is None else pad(bias.detach(), (0, -O % EDGE)).contiguous()
    sizes: NDArray[np.int64] = np.array((N, M, O, x.steps, w.between), np.int64)
    at = x.address, w.address, 0 if begin is None else begin.data_ptr()
    tiles_amx.multiply(out.data_ptr(), *at, sizes, TILES)
    return out


def matched(codes: Tensor, of_matrix: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """Codes [N, M, I] of all matrices, and the leading dimensions of results; one matrix takes all inputs as its rows.

    Args:
        codes: [..., M, I].
        of_matrix: leading dimensions of the matrix.
    """
    M, I = codes.shape[-2:]
    if prod(of_matrix) == 1:
        return codes.reshape(1, -1, I), tuple(torch.broadcast_shapes(codes.shape[:-2], of_matrix))
    lead = torch.broadcast_shapes(codes.shape[:-2], of_matrix)
    return codes.expand(*lead, M, I).reshape(-1, M, I), tuple(lead)


def expanded(matrix: Tensor, lead: tuple[int, ...]) -> Tensor:
    """A matrix [..., O, I] as [N, O, I] for results with these leading dimensions, or [1, O, I] if it is only one."""
    one = prod(matrix.shape[:-2]) == 1
    return (matrix if one else matrix.expand(*lead, *matrix.shape[-2:])).reshape(-1, *matrix.shape[-2:])
