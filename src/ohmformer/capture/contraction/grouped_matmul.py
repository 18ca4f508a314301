"""Grouped matrix products: sorted tokens times a bank with one matrix per group, as in a mixture of experts.

Shapes: T tokens, E experts, C input features, O output features.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ohmformer.capture.contraction.matmul import Contraction

GROUPED = {func for func in (getattr(F, "grouped_mm", None), getattr(torch, "_grouped_mm", None)) if func is not None}
"""The functions whose calls `group_contraction` takes."""


def group_contraction(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Contraction | None]:
    """The products of tokens[T, C], sorted by expert, with a bank [E, C, O]: one per expert; [None] for other forms."""
    named = dict(zip(("mat_a", "mat_b", "offs", "bias"), args, strict=False)) | kwargs
    tokens, bank = named.get("mat_a", named.get("input")), named.get("mat_b", named.get("mat2", named.get("weight")))
    ends = named.get("offs")
    if not (isinstance(tokens, Tensor) and isinstance(bank, Tensor) and isinstance(ends, Tensor)):
        return [None]
    if tokens.dim() != 2 or bank.dim() != 3 or named.get("bias") is not None:
        return [None]
    bounds = [0] * (len(bank) + 1) if ends.is_meta else [0, *ends.tolist()]
    return [
        Contraction(tokens[start:end], bank[e].transpose(-2, -1), _identity)
        for e, (start, end) in enumerate(pairwise(bounds))
    ]


def _identity(y: Tensor) -> Tensor:
    return y
