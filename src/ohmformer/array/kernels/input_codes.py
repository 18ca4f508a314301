"""Values to whole codes in one pass, by a compiled loop on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from ohmformer.array.kernels.scratch import scratch
from ohmformer.streams.backends import Kernels, compiles

LARGEST = 2**21
"""Largest code that the loop rounds."""


def fusible(values: Tensor, code_range: Tensor, top: int, kernels: Kernels) -> bool:
    """True if `to_codes` supports the values: float32 on a CPU with compiled kernels, and a range of whole axes.

    Args:
        values: to be rounded to codes.
        code_range: the value of the largest code, which broadcasts against them.
        top: the largest code.
        kernels: the choice of the model.
    """
    if not compiles(values.device, kernels) or {values.dtype, code_range.dtype} != {torch.float32}:
        return False
    return top <= LARGEST and values.numel() > 0 and _parts(values, code_range) is not None


def to_codes(
    values: Tensor, code_range: Tensor, top: int, low: int, high: int, *, passing: bool = False
) -> tuple[Tensor, bool]:
    """`encoding.quantize` of values that are `fusible`, to the bit.

    Args:
        values: to be rounded to codes.
        code_range: the value of code `top`.
        top: see above.
        low: lowest code.
        high: highest code.
        passing: True if nothing needs the codes after the next call, which then may use their memory again.

    Returns:
        The codes, in the order in memory of the values where that is one of two usual ones; and True if all values and
        ranges are usable.
    """
    from ohmformer.array.kernels import input_codes_compiled

    turned = values.dim() > 1 and not values.is_contiguous() and values.transpose(-2, -1).is_contiguous()
    if turned and _parts(values.transpose(-2, -1), _turned(code_range)) is not None:
        codes, usable = to_codes(values.mT, _turned(code_range), top, low, high, passing=passing)
        return codes.transpose(-2, -1), usable
    parts = _parts(values, code_range)
    assert parts is not None
    values = values.detach().contiguous()
    codes = scratch("codes", values.shape) if passing else torch.empty_like(values)
    flat = codes.view(-1).numpy(), values.view(-1).numpy(), parts.numpy()
    wrong = input_codes_compiled.to_codes(*flat, float(top), float(low), float(high))
    return codes, wrong == 0


def _turned(code_range: Tensor) -> Tensor:
    return code_range.transpose(-2, -1) if code_range.dim() > 1 else code_range


def _parts(values: Tensor, code_range: Tensor) -> Tensor | None:
    """The ranges of equal parts of the values, one after the other; None if the range differs along the last axis."""
    code_range = code_range.detach()
    if code_range.numel() == 1:
        return code_range.reshape(1)
    shape = (1,) * (values.dim() - code_range.dim()) + tuple(code_range.shape)
    inner = next(n for n, size in enumerate(reversed(shape)) if size != 1)
    if inner == 0:
        return None
    outer = values.dim() - inner
    return code_range.reshape(shape[:outer]).expand(values.shape[:outer]).reshape(-1)
