"""Tensors piece by piece: what is computed on a piece stays in a core's cache, and no threads wait for one another."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

SIZE = 32_000
"""Values of a piece: just below 32,768, from which on PyTorch shares an elementwise function among threads."""


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of the same values of each tensor, in order; whole tensors where they do not lie alike in memory."""
    first = tensors[0]
    if any(t.shape != first.shape or not t.is_contiguous() for t in tensors) or first.is_cuda:
        yield tensors
        return
    yield from zip(*(t.view(-1).split(SIZE) for t in tensors), strict=True)
