"""Polynomials and tables: values between given points, and the smallest value of a polynomial in an interval.

Functions on tensors use only methods of the tensors, except `linear`, which imports torch when it is called.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Row = tuple[float, ...]
Rows = tuple[Row, ...]


def row_at(age: float, times: Row, rows: Rows) -> Row:
    """Interpolate a row of values linearly in the logarithm of time.

    Args:
        age: a time [s]; before the first and after the last one of `times`, that one's row is taken.
        times: rising times above zero [s].
        rows: one row for each time. Shorter rows count as if they ended with zeros.

    Returns:
        The row at that time, as long as the longest one of the two rows around it.
    """
    after = bisect_right(times, age)
    if after == 0 or after == len(times):
        return rows[max(0, after - 1)]
    share = math.log(age / times[after - 1]) / math.log(times[after] / times[after - 1])
    earlier, later = rows[after - 1], rows[after]
    length = max(len(earlier), len(later))
    earlier, later = (row + (0.0,) * (length - len(row)) for row in (earlier, later))
    return tuple((1 - share) * a + share * b for a, b in zip(earlier, later, strict=True))


def polynomial(x: Tensor, coefficients: Row) -> Tensor:
    """Evaluate sum_k c_k x^k: a new tensor.

    Args:
        x: arguments, of any shape.
        coefficients: c_0, c_1 and so on; at least one.
    """
    value = x.new_full(x.shape, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value.mul_(x).add_(coefficient)
    return value


def least_value(coefficients: Row, low: float, high: float) -> tuple[float, float]:
    """Find the smallest value of a polynomial between `low` and `high`, and where it is.

    Args:
        coefficients: c_0, c_1 and so on; at least one.
        low: lower end of the interval.
        high: upper end.
    """
    import numpy as np

    slope = np.trim_zeros([k * c for k, c in enumerate(coefficients)][:0:-1], "f")  # highest power first
    turns = [float(root.real) for root in np.roots(slope) if low < root.real < high] if len(slope) > 1 else []
    values = [(float(np.polyval(coefficients[::-1], x)), x) for x in (low, high, *turns)]
    return min(values)


def linear(x: Tensor, points: Row, values: Row) -> Tensor:
    """Interpolate linearly between given points: a new tensor. Beyond the ends the outer lines are continued.

    Args:
        x: arguments, of any shape.
        points: at least two rising arguments.
        values: the value at each point.
    """
    import torch

    at, known = x.new_tensor(points), x.new_tensor(values)
    slopes = known.diff() / at.diff()
    index = torch.bucketize(x, at[1:-1].contiguous())
    return (x - at[index]).mul_(slopes[index]).add_(known[index])
