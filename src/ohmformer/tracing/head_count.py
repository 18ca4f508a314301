"""How many samples and heads a product of two activations is of, from the shapes of its factors.

Shapes: left[..., M, I] and right[..., O, I]; `...` are axes of samples and heads, heads last.
"""

from __future__ import annotations

from math import prod

import torch

from ohmformer.capture.product import Product
from ohmformer.tracing.recorder import TensorOrigin


def counts(
    left: tuple[int, ...], right: tuple[int, ...], trail: TensorOrigin, product: Product, candidates: tuple[int, ...]
) -> tuple[int, int, int]:
    """Samples (windows count as such), heads, and heads of the right factor without copies."""
    lead = _lead(left[:-2], right[:-2])
    if len(lead) < 2:
        total = prod(lead)
        samples = next((n for n in candidates if n and total % n == 0), 1)
        heads = total // samples
        kv_heads = max(1, prod(right[:-2]) // samples)
    elif len(lead) > 2 and right[-3] == 1 and lead[-1] > 1 and len(right) == len(lead) + 2:
        heads, kv_heads = lead[-1] * lead[-2], right[-4]
        samples = prod(lead[:-2])
    else:
        samples, heads = prod(lead[:-1]), lead[-1]
        kv_heads = right[-3] if len(right) > 2 else 1
    if trail.copies > 1 and kv_heads % trail.copies == 0:
        kv_heads //= trail.copies
    elif product.groups is not None and len(lead) >= 2 and _tells(product):
        kv_heads = product.groups if kv_heads % product.groups == 0 else kv_heads
    return samples, heads, kv_heads


def _tells(product: Product) -> bool:
    """Whether the values of the right factor can tell heads from one another: not where all are zero."""
    values = None if product.right is None else product.right.values
    return values is not None and values.numel() > 0 and bool(values.abs().max() > 0)


def _lead(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of samples and heads of a product; fused attention may have fewer heads on the right."""
    try:
        return tuple(torch.broadcast_shapes(left, right))
    except RuntimeError:
        return left
