"""Read noise, conversion and the sum over row blocks in one launch of a Triton kernel.

It needs Triton, so nothing imports this file before a product on a GPU asks for it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ohmformer.streams.backends import launching_on

BLOCK = 1024
"""Results of one program."""


Scale = tuple[float, float, int, int]
"""What `converters.code_scale` returns."""


@triton.jit
def rounded(x):
    """The nearest integer of numbers below 2^22, the even one of two: the addition leaves no bits for a fraction."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def sum_converted(
    total, currents, variance, normals, zero, step, lowest, highest, weight, blocks, size,
    NOISY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program adds the conversions of all row blocks to `BLOCK` results."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = at < size
    added = tl.zeros([BLOCK], dtype=tl.float32)
    for block in range(blocks):
        of_block = at + block * size
        y = tl.load(currents + of_block, mask=there, other=0.0)
        if NOISY:
            std = tl.sqrt_rn(tl.load(variance + of_block, mask=there, other=0.0))
            y += std * tl.load(normals + of_block, mask=there, other=0.0)
        # A clamp to whole numbers may come before the rounding.
        code = tl.clamp(tl.div_rn(y - zero, step), lowest, highest, propagate_nan=tl.PropagateNan.ALL)
        added += rounded(code) * step + zero
    held = tl.load(total + at, mask=there, other=0.0)
    tl.store(total + at, held + weight * added, mask=there)


def add_converted(
    total: Tensor, currents: Tensor, variance: Tensor | None, normals: Tensor | None, scale: Scale, weight: float
) -> None:
    """Add what converters report of the currents of all row blocks to a sum, in place.

    Args:
        total: [..., M, O] float32, contiguous; changed.
        currents: [K, ..., M, O] of K row blocks, in digits times input units.
        variance: of the reads, likewise; None for reads without noise.
        normals: standard normals, likewise; None for reads without noise.
        scale: of the converters, see `converters.code_scale`.
        weight: of the conversions in the sum.
    """
    noisy = variance is not None and normals is not None
    currents = currents.contiguous()
    variance, normals = (t.contiguous() if noisy and t is not None else currents for t in (variance, normals))
    grid = (triton.cdiv(total.numel(), BLOCK),)
    if 0 in grid:
        return
    with launching_on(total):
        sum_converted[grid](
            total, currents, variance, normals, *map(float, scale), weight, len(currents), total.numel(),
            NOISY=noisy, BLOCK=BLOCK, enable_fp_fusion=False,
        )  # fmt: skip
