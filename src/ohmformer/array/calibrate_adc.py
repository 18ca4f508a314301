"""Calibration of converter ranges: statistics of the column currents that real inputs cause.

Shapes: M input vectors, O outputs, I inputs, S slices. Currents are in digits times input units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.array.multiply import column_currents
from ohmformer.array.peripherals.spec import mismatched
from ohmformer.array.programmed import Programmed
from ohmformer.streams import Streams


@torch.no_grad()
def column_percentiles(
    codes: Tensor, programmed: Programmed, *, signed: bool, percentile: float, noise: Streams | None = None
) -> tuple[Tensor, Tensor]:
    """The lowest and highest current of each slice that enclose a percentile of the currents to convert.

    Currents have the gain of their converters and the noise of row drivers. Offset and noise of converters are shares
    of the range that is looked for: they are added as shares of the range of currents without them.

    Args:
        codes: integer inputs [..., M, I] of calibration data.
        programmed: the matrix [..., O, I].
        signed: as in `mvm`.
        percentile: in percent; 100 takes the extremes.
        noise: key of the noise of row drivers and converters; None for none.

    Returns:
        Two tensors [S], in digits times input units; the highest current is at least one unit above the lowest.
    """
    parts = programmed.array.peripherals
    span: tuple[Tensor, Tensor] | None = None
    shares = (parts.output_noise and noise is not None) or mismatched(programmed.array)
    for _ in range(2 if shares else 1):
        samples: list[list[Tensor]] = [[] for _ in range(programmed.slices)]
        reads = column_currents(codes, programmed, signed=signed, stream=None, noise=noise, span=span)
        for s, _, currents in reads:
            samples[s].append(currents.flatten())
        ends = [_extremes(torch.cat(parts), percentile) for parts in samples]
        lows, highs = torch.stack([low for low, _ in ends]), torch.stack([high for _, high in ends])
        span = lows, torch.maximum(highs, lows + 1)
    assert span is not None
    return span


def _extremes(values: Tensor, percentile: float) -> tuple[Tensor, Tensor]:
    """The values below and above which (100 - percentile) percent of all values lie; thinned to 4,000,000 values."""
    if percentile >= 100:
        return values.amin(), values.amax()
    thinned = values[:: max(1, values.numel() // 4_000_000)].float()
    shares = torch.tensor([1 - percentile / 100, percentile / 100], dtype=thinned.dtype, device=values.device)
    low, high = thinned.quantile(shares).to(values.dtype).unbind()
    return low, high


def widest(a: tuple[Tensor | float, Tensor | float], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The smallest range that contains both ranges.

    Args:
        a: lowest and highest currents [S].
        b: likewise; the number of slices may differ.

    Returns:
        Lowest and highest currents, for as many slices as the longer range has.
    """
    low, high = (torch.as_tensor(end).to(b[0]) for end in a)
    n = min(len(low), len(b[0]))
    lows = [torch.minimum(low[:n], b[0][:n]), low[n:], b[0][n:]]
    highs = [torch.maximum(high[:n], b[1][:n]), high[n:], b[1][n:]]
    return torch.cat(lows), torch.cat(highs)
