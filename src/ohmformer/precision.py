"""The precision in which codes and conductances are computed."""

from __future__ import annotations

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
