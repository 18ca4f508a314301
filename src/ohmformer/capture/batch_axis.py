"""`BatchAxis`: the axis of a factor of a product that holds the samples of a batch, and how two runs show it.

The model runs twice, the second time with its samples exchanged. The axis along which values move holds the samples.

Shapes: B samples, r places of one sample along an axis that holds several places of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ohmformer.capture.signature import Signature

TOLERANCE = 1e-3
"""Largest difference of equal signatures, as a share of the largest value. A sum in another order differs by far less,
another sample by far more."""


@dataclass(frozen=True)
class BatchAxis:
    """The axis of a factor that holds the samples.

    Attributes:
        axis: index of the axis, counted from the left.
        size: r, the places that each sample had along the axis in the dry run.
        major: True if the r places of a sample are adjacent; False if they are B apart.
    """

    axis: int = 0
    size: int = 1
    major: bool = True

    def samples(self, t: Tensor) -> int:
        """Number of samples in a factor with r places per sample; 0 if its axis is not a multiple of r."""
        count, rest = divmod(t.shape[self.axis], self.size)
        return 0 if rest else count

    def move_samples_first(self, t: Tensor, samples: int) -> Tensor:
        """The factor as [B, ...]: samples first, then its other axes, r included, in their order."""
        if self.axis == 0 and t.shape[0] == samples:
            return t
        sizes = (samples, -1) if self.major else (-1, samples)
        split = t.unflatten(self.axis, sizes)
        if t.shape[self.axis] == samples:
            split = split.squeeze(self.axis + 1 if self.major else self.axis)
            return torch.movedim(split, self.axis, 0)
        return torch.movedim(split, self.axis if self.major else self.axis + 1, 0)

    def move_samples_back(self, t: Tensor, places: int) -> Tensor:
        """The inverse of `move_samples_first`, for a factor [B, ...] whose sample axis had `places` places.

        The result is contiguous, as that of a product is, so that models can call `view` on it.
        """
        samples = len(t)
        if places == samples:
            return t if self.axis == 0 else t.movedim(0, self.axis).contiguous()
        moved = t.movedim(0, self.axis if self.major else self.axis + 1)
        return moved.flatten(self.axis, self.axis + 1).contiguous()

    def to_heads(self, t: Tensor, samples: int) -> Tensor:
        """A factor [..., M, I] as [B, R, M, I]; R is the product of all leading axes but samples, such as heads."""
        t = self.move_samples_first(t, samples)
        return t.unsqueeze(1) if t.dim() == 3 else t.flatten(1, -3)

    def from_heads(self, y: Tensor, lead: tuple[int, ...]) -> Tensor:
        """The inverse of `to_heads`: y[B, R, M, O] as [..., M, O], where `lead` are the sizes of the axes `...`."""
        if self.axis == 0 and lead[0] == len(y):
            return y.reshape(*lead, *y.shape[-2:])
        middle = self.move_samples_first(torch.empty(lead, device="meta"), len(y)).shape[1:]
        return self.move_samples_back(y.reshape(len(y), *middle, *y.shape[-2:]), lead[self.axis])


FIRST = BatchAxis()


def exchange_samples(values: Tensor, batch_axis: BatchAxis, samples: int) -> Tensor:
    """Values [..., B r, ...] with sample b moved to the place of sample b + 1, and the last one to the first."""
    sizes = (samples, -1) if batch_axis.major else (-1, samples)
    split = values.unflatten(batch_axis.axis, sizes)
    moved: Tensor = split.roll(1, batch_axis.axis if batch_axis.major else batch_axis.axis + 1)
    return moved.flatten(batch_axis.axis, batch_axis.axis + 1)


def find_batch_axis(before: Signature, after: Signature, samples: int, *, prefer: int = 0) -> BatchAxis | None:
    """The axis that holds the samples of a factor.

    Args:
        before: signature of the factor in the first run.
        after: signature of the factor in the second run, in which the samples of the inputs were exchanged.
        samples: B.
        prefer: index of the axis to take if several fit, as they do when all samples are alike.

    Returns:
        The first axis that fits; axes of B places come before larger ones. None if the factor mixes samples, or is the
        same for all samples and holds no copy for each (learned queries, such as those of DETR, hold such copies).
    """
    if before.values.shape != after.values.shape:
        return None
    a, b = before.values, after.values
    candidates = (axis for axis in _candidate_axes(a, samples, prefer) if axis.size == 1 or not before.constant)
    matches = [axis for axis in candidates if _close(exchange_samples(a, axis, samples), b)]
    return matches[0] if matches else None


def same_for_all(before: Signature, after: Signature) -> bool:
    """True if exchanging the samples leaves a factor as it is."""
    return before.constant or (before.values.shape == after.values.shape and _close(before.values, after.values))


def _candidate_axes(values: Tensor, samples: int, prefer: int) -> Iterator[BatchAxis]:
    """The axes that may hold B samples, by their sizes, the likeliest first."""
    axes = sorted(range(values.dim()), key=lambda axis: (axis != prefer, axis))
    whole = [axis for axis in axes if values.shape[axis] == samples]
    folded = [axis for axis in axes if values.shape[axis] > samples and values.shape[axis] % samples == 0]
    yield from (BatchAxis(axis) for axis in whole)
    for major in (True, False):
        yield from (BatchAxis(axis, values.shape[axis] // samples, major) for axis in folded)


def _close(a: Tensor, b: Tensor) -> bool:
    scale = torch.maximum(a.abs().amax(), b.abs().amax()) if a.numel() else a.new_zeros(())
    return bool(((a - b).abs() <= TOLERANCE * scale).all())
