"""Which code to write so that the cells hold what is wanted on average ("predistortion"), as a table."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.code_moments import held_moments
from ohmformer.array.spec import Crossbar
from ohmformer.errors import BadInput

FINENESS = 1024
"""Points of a table, at least."""


def steps_per_code(array: Crossbar) -> int:
    """Points of a table for each code: five or more, and one more than a multiple of four.

    Then no point lies in the middle between two codes, and what does is rounded to the point beside the even code: so
    rounding to points and then to codes is rounding to codes.
    """
    return 4 * max(1, -(-FINENESS // (4 * array.max_code))) + 1


@lru_cache(maxsize=256)
def unbiased_codes(array: Crossbar, trade: float = 0.0, max_code: int | None = None) -> Tensor:
    """The magnitude code to write for each wanted magnitude x: the one with the least (mean - x)^2 + trade variance.

    Mean and variance are those of `held_moments`, so `trade` = 0 is least biased and 1 has the least mean square error.
    What is held on average never falls as x grows. (Codes themselves may, where digits carry: at strong noise three
    cells at digit 3 hold more than one at the next place holds at digit 1.)

    Args:
        array: the hardware.
        trade: weight of the variance.
        max_code: the largest code in use, as in `held_moments`.

    Returns:
        Codes [steps_per_code * array.max_code + 1] for x from 0 to full scale, which is the array's largest code
        (whatever is held on average where that one is written). Wanted zeros are code 0. The tensor is shared: do not
        change it.

    Raises:
        BadInput: `trade` is negative or no number, or `held_moments` refuses.
    """
    if not 0 <= trade < math.inf:
        raise BadInput(f"unbiased_codes: trade = {trade:g}: must be 0 or more, and finite; 1 is mean square error")
    mean, variance = held_moments(array, max_code)
    steps = steps_per_code(array)
    wanted = torch.arange(steps * array.max_code + 1, dtype=torch.float64) / steps
    codes, borders = _envelope(mean.tolist(), (mean**2 + trade * variance).tolist())
    table = torch.tensor(codes)[torch.bucketize(wanted, torch.tensor(borders, dtype=torch.float64))]
    table[0] = 0
    return table


def _envelope(mean: list[float], offset: list[float]) -> tuple[list[int], list[float]]:
    """Codes with the least offset - 2 mean x as x grows, and the x where one takes over from the other.

    That is the squared distance to x without x^2, so codes are straight lines, and the best ones their lower envelope.
    """
    kept: list[int] = []
    borders: list[float] = []
    for code in sorted(range(len(mean)), key=lambda c: (mean[c], offset[c], c)):
        if kept and mean[kept[-1]] == mean[code]:
            continue
        while kept:
            last = kept[-1]
            border = (offset[code] - offset[last]) / (2 * (mean[code] - mean[last]))
            if not borders or border > borders[-1]:
                break
            kept.pop()
            borders.pop()
        if kept:
            borders.append(border)
        kept.append(code)
    return kept, borders


def quantise_unbiased(w: Tensor, array: Crossbar, w_range: Tensor, table: Tensor) -> Tensor:
    """Values w[..., O, I] to integer codes of the same shape and dtype, as `encoding.quantise`, by a table of codes.

    Args:
        w: real values; those beyond the range saturate.
        array: the hardware.
        w_range: broadcasts against w.
        table: of `unbiased_codes` for the array.

    Raises:
        BadInput: the table is that of another array; or as in `encoding.quantise`.
    """
    top = len(table) - 1
    if top != steps_per_code(array) * array.max_code:
        raise BadInput(
            f"quantise_unbiased: a table of {len(table)} points is not one of this array; make it with unbiased_codes"
        )
    wide = encoding.widened(w, "w")  # half precision does not count as far as a table is long
    places = encoding.quantise(wide, array, w_range.to(wide), rounded=False).mul_(steps_per_code(array)).round_()
    signed = torch.cat([-table[1:].flip(0), table]).to(w)
    return signed.take(places.add_(top).long())
