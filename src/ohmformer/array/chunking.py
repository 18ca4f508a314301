"""Work on large tensors in pieces that fit into a core's cache, without the cost of synchronizing threads."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

PIECE_SIZE = 32_000
"""Values per piece: just below 32,768, the size from which PyTorch shares an elementwise function among threads."""


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors of the same shape into pieces, to be changed in place.

    Args:
        tensors: of one shape.

    Returns:
        For each piece, flat views of the same values of every tensor, in memory order. The tensors themselves are the
        only piece if they are small, or if one of them is not contiguous, requires a gradient, or is not on the CPU.
    """
    first = tensors[0]
    if first.numel() <= PIECE_SIZE:
        yield tensors
        return
    alike = all(t.shape == first.shape and t.is_contiguous() and not t.requires_grad for t in tensors)
    if not alike or first.device.type != "cpu":
        yield tensors
        return
    yield from zip(*(t.view(-1).split(PIECE_SIZE) for t in tensors), strict=True)
