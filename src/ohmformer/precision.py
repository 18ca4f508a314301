"""The precision in which codes and conductances are computed, and that of the size of read noise.

Shapes: M input vectors, O outputs, I inputs; `...` are matrices that share one call.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ohmformer.errors import BadInput


def widened(values: Tensor, who: str) -> Tensor:
    """Values in at least float32, in which codes and conductances are precise enough.

    Args:
        values: a real tensor.
        who: subject of the error message.

    Raises:
        BadInput: the values are not a dense tensor, or are complex.
    """
    if not isinstance(values, Tensor):
        raise BadInput(f"{who} is {type(values).__name__}; give a torch.Tensor, such as torch.as_tensor(...) makes")
    if values.layout is not torch.strided or values.is_nested:
        raise BadInput(f"{who} is sparse or nested, and crossbars multiply all values; give a dense tensor")
    if values.dtype is torch.float32 or values.dtype is torch.float64:
        return values
    if values.is_complex():
        raise BadInput(f"{who} is complex, and cells hold real values; take real and imaginary part one by one")
    return values.to(torch.promote_types(values.dtype, torch.float32))


def coarse(values: Tensor) -> Tensor:
    """Factors of `coarse_product`: rounded to bfloat16 where that is fast.

    That is the case for float32 on a CPU with instructions for products of bfloat16 numbers, which take a seventh of
    the time of products of float32 numbers. Elsewhere these are the values themselves.
    """
    fast = values.dtype is torch.float32 and values.device.type == "cpu" and _multiplies_bfloat16()
    return values.bfloat16() if fast else values


def coarse_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T of numbers that are not negative, precise enough for the variance of a sum of read noise.

    With bfloat16 each factor and each result is rounded, by at most 2^-8 of its size, and sums are float32. As no
    number is negative, nothing cancels: a result is off by less than 1.2 %, and its square root by less than 0.6 %.
    Sums of many numbers are off by the last rounding alone: their square root by at most 0.2 %, 0.1 % in the root mean
    square, and not on average.

    Args:
        a: what `coarse` returns for [..., M, I].
        b: what `coarse` returns for [..., O, I].

    Returns:
        A new tensor [..., M, O] in at least float32.
    """
    product = a @ b.transpose(-2, -1)
    return product.float() if product.dtype is torch.bfloat16 else product


@cache
def _multiplies_bfloat16() -> bool:
    """True if this CPU has instructions for products of bfloat16 numbers."""
    has: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of PyTorch do not tell
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
