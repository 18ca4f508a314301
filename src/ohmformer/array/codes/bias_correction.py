"""Bias-corrected codes (predistortion): the code whose cells hold a value on average, as a lookup table.

Plain quantization writes the code nearest to a value. The clamp at G = 0 raises the mean of noisy cells, so that code
does not hold the value on average.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ohmformer.array import encoding
from ohmformer.array.codes.code_moments import held_moments
from ohmformer.array.spec import Crossbar
from ohmformer.device.kinds import Faults, NoDrift, NoNoise
from ohmformer.errors import BadInput
from ohmformer.precision import widened

MIN_TABLE_POINTS = 1024
"""Lower bound on the number of points of a table."""


def steps_per_code(array: Crossbar) -> int:
    """Table points per code: at least 5, and of the form 4 k + 1.

    With such a number no point lies midway between two codes, and a value that does lie there is rounded to the point
    on the side of the even code. So rounding to points and then to codes equals rounding to codes.
    """
    return 4 * max(1, -(-MIN_TABLE_POINTS // (4 * array.max_code))) + 1


@lru_cache(maxsize=256)
def unbiased_codes(array: Crossbar, trade: float = 0.0, max_code: int | None = None) -> Tensor:
    """The magnitude code to write for each magnitude x: the code with the least (mean - x)^2 + trade * variance.

    Mean and variance are those of `held_moments`. `trade` = 0 minimizes the bias, `trade` = 1 the mean square error.
    The mean that the chosen cells hold never falls as x grows. The codes themselves may fall where digits carry: under
    strong noise three cells at digit 3 hold more than one cell of the next slice at digit 1.

    Args:
        array: the hardware.
        trade: weight of the variance, dimensionless.
        max_code: the largest code in use, as in `held_moments`.

    Returns:
        Codes [steps_per_code * array.max_code + 1], int64, for x from 0 to `array.max_code` in equal steps. The
        entry of x = 0 is code 0. The tensor is cached and shared: do not change it.

    Raises:
        BadInput: `trade` is negative or not finite, or `held_moments` refuses the array.
    """
    if not 0 <= trade < math.inf:
        raise BadInput(
            f"unbiased_codes: trade = {trade:g}: must be 0 or more, and finite; 1 minimizes the mean square error"
        )
    mean, variance = held_moments(array, max_code)
    steps = steps_per_code(array)
    magnitudes = torch.arange(steps * array.max_code + 1, dtype=torch.float64) / steps
    codes, borders = _lower_envelope(mean.tolist(), (mean**2 + trade * variance).tolist())
    table = torch.tensor(codes)[torch.bucketize(magnitudes, torch.tensor(borders, dtype=torch.float64))]
    table[0] = 0
    return table


@lru_cache(maxsize=256)
def nearest_codes(array: Crossbar, max_code: int | None = None) -> Tensor:
    """The magnitude code whose levels are nearest to each magnitude: `unbiased_codes` of cells without errors.

    With even levels this is rounding; with uneven ones, codes between two levels are left out.
    """
    errors = {"write_noise": NoNoise(), "drift": NoDrift(), "faults": Faults()}
    exact = {"cell": array.cell.model_copy(update=errors), "write_verify": None, "writes": 0.0}
    return unbiased_codes(array.model_copy(update=exact), 0.0, max_code)


def _lower_envelope(mean: list[float], offset: list[float]) -> tuple[list[int], list[float]]:
    """The codes that minimize offset - 2 mean x as x grows, and the values of x where one code replaces the previous.

    The cost (mean - x)^2 + trade * variance without its term x^2, which all codes share, is a straight line in x. The
    best codes are therefore the lower envelope of these lines.

    Args:
        mean: by code, the mean held; the slope of its line is -2 mean.
        offset: by code, mean^2 + trade * variance.

    Returns:
        The codes of the envelope in the order of x, and the borders between them (one fewer).
    """
    envelope: list[int] = []
    borders: list[float] = []
    for code in sorted(range(len(mean)), key=lambda c: (mean[c], offset[c], c)):
        if envelope and mean[envelope[-1]] == mean[code]:
            continue
        while envelope:
            last = envelope[-1]
            border = (offset[code] - offset[last]) / (2 * (mean[code] - mean[last]))
            if not borders or border > borders[-1]:
                break
            envelope.pop()
            borders.pop()
        if envelope:
            borders.append(border)
        envelope.append(code)
    return envelope, borders


def quantize_unbiased(values: Tensor, array: Crossbar, code_range: Tensor, table: Tensor) -> Tensor:
    """Quantize values with a table of bias-corrected codes; otherwise as `encoding.quantize`.

    Args:
        values: [..., O, I], real; values beyond the range saturate.
        array: the hardware.
        code_range: the value of the largest code; broadcasts against the values.
        table: what `unbiased_codes` returns for the array.

    Returns:
        Integer codes [..., O, I] in the dtype of the values.

    Raises:
        BadInput: the table belongs to another array; or as in `encoding.quantize`.
    """
    if len(table) != steps_per_code(array) * array.max_code + 1:
        raise BadInput(
            f"quantize_unbiased: a table of {len(table)} points is not one of this array; make it with unbiased_codes"
        )
    wide = widened(values, "values")  # half precision cannot represent the index of every table point
    return looked_up(encoding.quantize(wide, array, code_range.to(wide), rounded=False), array, table).to(values)


def looked_up(codes: Tensor, array: Crossbar, table: Tensor) -> Tensor:
    """Round numbers between codes to codes of a table.

    Args:
        codes: of any shape, in at least float32: -array.max_code to array.max_code.
        array: the hardware.
        table: magnitude codes, as `unbiased_codes` returns them for the array.

    Returns:
        Integer codes of the same shape and dtype.
    """
    signed_table = torch.cat([-table[1:].flip(0), table]).to(codes)
    points = (codes * steps_per_code(array)).round_().add_(len(table) - 1)
    return torch.take(signed_table, points.long(), out=torch.empty_like(codes))
