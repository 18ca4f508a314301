"""What the columns of programmed crossbars give on real inputs: to calibrate the range of their converters."""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.array.crossbar import Programmed
from ohmformer.array.multiply import currents, reads


@torch.no_grad()
def column_percentiles(
    codes: Tensor, programmed: Programmed, *, signed: bool, percentile: float
) -> tuple[Tensor, Tensor]:
    """Lowest and highest currents [S] to convert, per slice, that hold `percentile` percent of those seen.

    Args:
        codes: integer inputs [..., M, I] of calibration data.
        programmed: the matrix [..., O, I].
        signed: as in `mvm`.
        percentile: 100 for the extremes.
    """
    seen: list[list[Tensor]] = [[] for _ in range(programmed.slices)]
    for s, _, block, _, volts in reads(codes, programmed, signed=signed):
        for side in programmed.sides[s]:
            seen[s].append(currents(volts, side, block, programmed.array, None).flatten())
    ends = [extremes(torch.cat(parts), percentile) for parts in seen]
    lows, highs = torch.stack([low for low, _ in ends]), torch.stack([high for _, high in ends])
    return lows, torch.maximum(highs, lows + 1)


def extremes(values: Tensor, percentile: float) -> tuple[Tensor, Tensor]:
    """The values below and above which (100 - percentile) percent lie."""
    if percentile >= 100:
        return values.amin(), values.amax()
    thinned = values[:: max(1, values.numel() // 4_000_000)].float()
    ends = torch.tensor([1 - percentile / 100, percentile / 100], device=values.device)
    low, high = thinned.quantile(ends).to(values.dtype).unbind()
    return low, high


def widest(a: tuple[Tensor | float, Tensor | float], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The range that holds both ranges, over as many slices as the longer one has."""
    low, high = (torch.as_tensor(end).to(b[0]) for end in a)
    n = min(len(low), len(b[0]))
    lows = [torch.minimum(low[:n], b[0][:n]), low[n:], b[0][n:]]
    highs = [torch.maximum(high[:n], b[1][:n]), high[n:], b[1][n:]]
    return torch.cat(lows), torch.cat(highs)
