"""Where the samples of a batch stand in the factors of a product: found by exchanging samples and looking what moves.

Shapes: B samples, r places of one sample along an axis that holds several of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ohmformer.capture.signature import Signature

TOLERANCE = 1e-3
"""Of the largest value: sums in another order differ by far less, other samples by far more."""


@dataclass(frozen=True)
class BatchAxis:
    """The axis of a factor along which samples stand.

    Attributes:
        axis: from the left.
        size: r, how many places along it each sample had in the dry run.
        major: the places of one sample are neighbors; otherwise they are B apart.
    """

    axis: int = 0
    size: int = 1
    major: bool = True

    def samples(self, factor: Tensor) -> int:
        """How many samples a factor holds if each has as many places as in the dry run; 0 where that cannot be."""
        count, rest = divmod(factor.shape[self.axis], self.size)
        return 0 if rest else count

    def first(self, factor: Tensor, samples: int) -> Tensor:
        """The factor with its samples as the first axis [B, ...]; other axes, r included, keep their order."""
        if self.axis == 0 and factor.shape[0] == samples:
            return factor
        sizes = (samples, -1) if self.major else (-1, samples)
        split = factor.unflatten(self.axis, sizes)
        if factor.shape[self.axis] == samples:
            split = split.squeeze(self.axis + 1 if self.major else self.axis)
            return torch.movedim(split, self.axis, 0)
        return torch.movedim(split, self.axis if self.major else self.axis + 1, 0)

    def back(self, factor: Tensor, places: int) -> Tensor:
        """The inverse of `first`, for a factor [B, ...] whose sample axis had `places` places."""
        samples = len(factor)
        if places == samples:
            return factor if self.axis == 0 else factor.movedim(0, self.axis)
        moved = factor.movedim(0, self.axis if self.major else self.axis + 1)
        return moved.flatten(self.axis, self.axis + 1)

    def to_heads(self, factor: Tensor, samples: int) -> Tensor:
        """A factor [..., M, I] as [B, R, M, I]: R counts all its axes that are none of samples, such as heads."""
        first = self.first(factor, samples)
        return first.unsqueeze(1) if first.dim() == 3 else first.flatten(1, -3)

    def from_heads(self, y: Tensor, lead: tuple[int, ...]) -> Tensor:
        """The inverse of `to_heads`: y[B, R, M, O] to [..., M, O], with the axes `lead` of the factor."""
        middle = self.first(torch.empty(lead, device="meta"), len(y)).shape[1:]
        return self.back(y.reshape(len(y), *middle, *y.shape[-2:]), lead[self.axis])


FIRST = BatchAxis()


def exchanged(values: Tensor, rows: BatchAxis, samples: int) -> Tensor:
    """What [.., B r, ..] becomes when sample b takes the place of sample b + 1."""
    sizes = (samples, -1) if rows.major else (-1, samples)
    split = values.unflatten(rows.axis, sizes)
    moved: Tensor = split.roll(1, rows.axis if rows.major else rows.axis + 1)
    return moved.flatten(rows.axis, rows.axis + 1)


def find_batch_axis(before: Signature, after: Signature, samples: int, *, prefer: int = 0) -> BatchAxis | None:
    """Where samples stand in a factor, from its signatures before and after samples were exchanged.

    None where the factor mixes samples, or is the same for all and holds no copy for each of them (queries that are
    learned, such as those of DETR, hold such copies). Of several answers that fit, as when all samples are alike, the
    axis `prefer` is taken where it holds B places, or else the first axis that does.
    """
    if before.values.shape != after.values.shape:
        return None
    a, b = before.values, after.values
    places = (rows for rows in _candidates(a, samples, prefer) if rows.size == 1 or not before.constant)
    found = [rows for rows in places if _close(exchanged(a, rows, samples), b)]
    return found[0] if found else None


def same_for_all(before: Signature, after: Signature) -> bool:
    """Whether exchanging samples changes nothing."""
    return before.constant or (before.values.shape == after.values.shape and _close(before.values, after.values))


def _candidates(values: Tensor, samples: int, prefer: int) -> Iterator[BatchAxis]:
    axes = sorted(range(values.dim()), key=lambda axis: (axis != prefer, axis))
    whole = [axis for axis in axes if values.shape[axis] == samples]
    folded = [axis for axis in axes if values.shape[axis] > samples and values.shape[axis] % samples == 0]
    yield from (BatchAxis(axis) for axis in whole)
    for major in (True, False):
        yield from (BatchAxis(axis, values.shape[axis] // samples, major) for axis in folded)


def _close(a: Tensor, b: Tensor) -> bool:
    scale = torch.maximum(a.abs().amax(), b.abs().amax()) if a.numel() else a.new_zeros(())
    return bool(((a - b).abs() <= TOLERANCE * scale).all())
