"""Writing values into cells that correct one another: each pair is read back before the next one is written.

Shapes: P = 2 halves of a pair, O outputs, I inputs, T points of a table; `...` are matrices that share one call, such
as samples and heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ohmformer.array.residual.policy import policy
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import Writer
from ohmformer.device import noise
from ohmformer.streams import RandomSource

Kept = TypeVar("Kept")
"""What a caller keeps of the cells of one slice."""
WriteSlice = Callable[[Tensor, int], tuple[Kept, Tensor]]
"""Writes digits [P, ..., O, I] into a slice, by its number; returns what is kept of its cells, and the digits that they
hold just after the write."""


class Tables(NamedTuple):
    """The policy of an array as tensors of one type on one device.

    Attributes:
        digits: [T] for each cell, the most significant first, the signed digit by what is missing: from -(T - 1) / 2
            to (T - 1) / 2 steps, the ends also beyond.
        weights: of each cell [codes per digit].
        step: distance of two points of `digits` [codes].
        read_back: [max_digit + 1, codes] as in `Policy`; None if the read-back is exact.
        read_back_step: step of a code of the read-back [digits].
        lowest_code: the code of the first column of `read_back`.
    """

    digits: tuple[Tensor, ...]
    weights: tuple[float, ...]
    step: float
    read_back: Tensor | None
    read_back_step: float
    lowest_code: int


@lru_cache(maxsize=64)
def _tables(array: Crossbar, max_code: int | None, dtype: torch.dtype, device: torch.device) -> Tables:
    """The policy of an array, for values of a type on a device."""
    rules = policy(array, max_code)
    digits = tuple(torch.cat([-c.digits[1:].flip(0), c.digits]).to(device, dtype) for c in rules.choices)
    table = None if rules.read_back is None else rules.read_back.to(device, dtype)
    weights = tuple(choice.weight for choice in rules.choices)
    return Tables(digits, weights, rules.step, table, rules.read_back_step, rules.lowest_code)


def write_residually(
    values: Tensor, max_code: int | None, writer: Writer, write: WriteSlice[Kept]
) -> Iterator[tuple[int, Kept]]:
    """Write values into all their slices, from the most significant one down.

    Args:
        values: [..., O, I] in codes, not rounded.
        max_code: the largest code in use, as in `WriteOptions`.
        writer: a new writer of the cells; it draws the noise of read-backs.
        write: writes one slice.

    Returns:
        For each slice its number, and what `write` keeps of it.
    """
    for s, kept, _ in write_slices(values, max_code, writer, write, open_read_backs(writer), last=False):
        yield s, kept


def open_read_backs(writer: Writer) -> RandomSource | None:
    """Return the random numbers of read-backs; None if reads are exact."""
    if noise.exact_reads(writer.array.cell):
        return None
    return writer.stream.child(writer.columns, "read back").open(writer.device)


def write_slices(
    values: Tensor,
    max_code: int | None,
    writer: Writer,
    write: WriteSlice[Kept],
    read_backs: RandomSource | None,
    *,
    last: bool,
) -> Iterator[tuple[int, Kept, Tensor]]:
    """`write_residually`, with what is missing after each slice.

    Args:
        values: [..., O, I] in codes, not rounded.
        max_code: the largest code in use, as in `WriteOptions`.
        writer: the writer of the cells.
        write: writes one slice.
        read_backs: random numbers of read-backs; None if reads are exact.
        last: read back the last slice, too.

    Returns:
        For each slice its number, what `write` keeps of it, and what is missing [..., O, I] as far as it was read back.
    """
    array = writer.array
    rules, top_slice = _tables(array, max_code, values.dtype, values.device), array.slices(max_code) - 1
    rest = values
    for s, digits, weight in zip(range(top_slice, -1, -1), rules.digits, rules.weights, strict=True):
        top = len(digits) // 2
        digit = digits.take((rest / rules.step).round_().clamp_(-top, top).add_(top).long())
        kept, held = write(torch.stack([digit.clamp(min=0), (-digit).clamp(min=0)]), s)
        if s or last:
            eps = None if read_backs is None else writer.normal(values.unsqueeze(0), read_backs)[0]
            rest = rest - weight * _read_back(held, digit, eps, rules, array)
        yield s, kept, rest


def _read_back(held: Tensor, digit: Tensor, eps: Tensor | None, rules: Tables, array: Crossbar) -> Tensor:
    """What pairs hold on average, given what their read-back says.

    Args:
        held: [2, ..., O, I] digits that the halves hold.
        digit: [..., O, I] signed digits that were written.
        eps: [..., O, I] standard normals of the reads; None if reads are exact.
        rules: the policy.
        array: the hardware.

    Returns:
        [..., O, I] signed digits.
    """
    pair = held[0] - held[1]
    if rules.read_back is None:
        return pair
    sign = torch.where(digit < 0, -1.0, 1.0).to(pair)
    if eps is not None:
        std = noise.read_std(array.cell.g_min + array.step * held, array.cell) / array.step
        pair = torch.addcmul(pair, std.square().sum(0).sqrt_(), eps)
    codes = rules.read_back.shape[1]
    code = (pair * sign / rules.read_back_step).round_().sub_(rules.lowest_code).clamp_(0, codes - 1)
    return sign * rules.read_back.take(digit.abs().mul_(codes).add_(code).long())
