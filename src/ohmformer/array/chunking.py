"""Tensors piece by piece: what is computed on a piece stays in a core's cache, and no threads wait for one another."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

SIZE = 32_000
"""Values of a piece: just below 32,768, from which on PyTorch shares an elementwise function among threads."""


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of the same values of each tensor, in order, to be changed in place.

    Tensors stay whole where they do not lie alike in memory, where they are not on the CPU, and for autograd.
    """
    first = tensors[0]
    alike = all(t.shape == first.shape and t.is_contiguous() and not t.requires_grad for t in tensors)
    if not alike or first.device.type != "cpu":
        yield tensors
        return
    yield from zip(*(t.view(-1).split(SIZE) for t in tensors), strict=True)
