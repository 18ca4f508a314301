"""Memory that compiled loops use again: new memory of this size costs more than the loop that fills it."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

_kept = threading.local()


def scratch(name: str, shape: torch.Size) -> Tensor:
    """A float32 tensor with any values, which holds until this thread asks for the same name again.

    Each thread keeps the largest tensor of each name that it asked for.
    """
    size, held = shape.numel(), getattr(_kept, name, None)
    if held is None or held.numel() < size:
        with torch.inference_mode(False):  # so that it may be used outside of that mode, too
            held = torch.empty(size, dtype=torch.float32)
        setattr(_kept, name, held)
    return held[:size].view(shape)
