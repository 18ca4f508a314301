"""What the columns of programmed crossbars give on real inputs: to calibrate the range of their converters."""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.crossbar import Programmed
from ohmformer.array.mvm import blocks, current, sides


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
    array = programmed.array
    planes, _ = encoding.bit_planes(codes, array, signed=signed)
    planes = blocks(planes, array.rows)
    lows, highs = [], []
    for s in range(programmed.slices):
        seen = []
        for plane in planes.unbind(0):
            plus, minus = (current(plane, side, array, None) for _, side in sides(programmed, s))
            if array.subtract == "analog":
                if array.encoding == "offset":
                    minus = minus.repeat_interleave(array.columns, dim=-1)[..., : plus.shape[-1]]
                seen.append((plus - minus).flatten())
            else:
                seen += [plus.flatten(), minus.flatten()]
        low, high = extremes(torch.cat(seen), percentile)
        lows.append(low)
        highs.append(torch.maximum(high, low + 1))
    return torch.stack(lows), torch.stack(highs)


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
    if low.shape[0] > b[0].shape[0]:
        b = (torch.cat([b[0], low[b[0].shape[0] :]]), torch.cat([b[1], high[b[1].shape[0] :]]))
    n = low.shape[0]
    joined = torch.minimum(low, b[0][:n]), torch.maximum(high, b[1][:n])
    return torch.cat([joined[0], b[0][n:]]), torch.cat([joined[1], b[1][n:]])
