"""What the cells of values hold together, with write noise and its clamp, in one launch of a Triton kernel.

It needs Triton, so nothing imports this file before a write on a GPU asks for it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ohmformer.streams.backends import launching_on

BLOCK = 1024
"""Values of one program."""


@triton.jit
def fold_slices(
    out, codes, normals, tables, low, high, copies, magnitudes, size, slice_step, pair_step, row, row_step,
    SLICES: tl.constexpr, PAIRS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program computes `BLOCK` values.

    Number i of the values has its normals at (i // row) * row_step + i % row, those of the next slice `slice_step`
    further, and those of the other half of the pair `pair_step` further. With PAIRS both halves have noise.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = at < size
    code = tl.load(codes + at, mask=there, other=0.0)
    positive = code >= 0
    magnitude = tl.maximum(tl.minimum(tl.abs(code).to(tl.int32), magnitudes - 1), 0)
    place = (at // row) * row_step + at % row
    stds, weights = tables + SLICES * magnitudes, tables + 2 * SLICES * magnitudes
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for s in tl.static_range(SLICES):
        first = s * magnitudes
        of_slice = normals + s * slice_step + place
        number = tl.load(of_slice, mask=there, other=0.0)
        mean, std = tl.load(tables + first + magnitude), tl.load(stds + first + magnitude)
        if PAIRS:
            other = tl.load(of_slice + pair_step, mask=there, other=0.0)
            unused = tl.load(tables + first) + tl.load(stds + first) * tl.where(positive, other, number)
            used = mean + std * tl.where(positive, number, other)
            held = tl.clamp(used, low, high) - tl.clamp(unused, low, high)
        else:
            held = tl.clamp(mean + std * number, low, high)
        total += tl.load(weights + first) * held
    total = tl.div_rn(total, copies)
    tl.store(out + at, tl.where(positive, total, -total), mask=there)


def held(codes: Tensor, normals: Tensor, tables: Tensor, bounds: tuple[float, float], copies: int) -> Tensor:
    """What the cells of each value hold together, in codes.

    Args:
        codes: [..., Y, X] whole numbers in float32, contiguous.
        normals: [S, P, ..., Y, X]; P is 2 if both halves of a pair have noise. In memory P may follow the first of the
            other axes.
        tables: [3, S, K] float32: means and standard deviations of the digits of each slice by the magnitude of a
            code, and the weight of the slice.
        bounds: lowest and highest digit that a cell can hold.
        copies: how many copies of each digit there are.

    Returns:
        A new tensor of the shape of `codes`.
    """
    S, P, size = *normals.shape[:2], codes.numel()
    out = torch.empty_like(codes)
    inside = normals.stride(1) if P > 1 else size
    # One row is what lies between the two halves of a pair: the matrices of a sample, or all.
    grid = (triton.cdiv(size, BLOCK),)
    with launching_on(codes):
        fold_slices[grid](
            out, codes, normals, tables, *bounds, float(copies), tables.shape[-1], size,
            P * size, inside, inside, P * inside,
            SLICES=S, PAIRS=P > 1, BLOCK=BLOCK, enable_fp_fusion=False,
        )  # fmt: skip
    return out
