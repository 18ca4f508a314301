"""`count_heads`: the number of samples and heads of a product of two activations, from the shapes of its factors.

Shapes: left[..., M, I] and right[..., O, I]; `...` are axes of samples and heads, heads last.
"""

from __future__ import annotations

from math import prod

import torch

from ohmformer.capture.product import Product
from ohmformer.tracing.recorder import TensorOrigin


def count_heads(
    left: tuple[int, ...], right: tuple[int, ...], origin: TensorOrigin, product: Product, candidates: tuple[int, ...]
) -> tuple[int, int, int]:
    """Count the samples and heads of a product.

    Args:
        left: shape of the left factor.
        right: shape of the right factor.
        origin: origin of the right factor, which shows the copies that an expansion made.
        product: the product, whose values may show copies.
        candidates: numbers of samples to try if samples and heads share an axis, the likeliest first.

    Returns:
        Number of samples (each window counts as one), of heads, and of heads of the right factor without copies.
    """
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
    if origin.copies > 1 and kv_heads % origin.copies == 0:
        kv_heads //= origin.copies
    elif product.groups is not None and len(lead) >= 2 and _has_values(product):
        kv_heads = product.groups if kv_heads % product.groups == 0 else kv_heads
    return samples, heads, kv_heads


def _has_values(product: Product) -> bool:
    """True if the right factor has values other than zero, by which equal heads can be told from different ones."""
    values = None if product.right is None else product.right.values
    return values is not None and values.numel() > 0 and bool(values.abs().max() > 0)


def _lead(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of the axes of samples and heads; those on the left if fused attention has fewer heads on the right."""
    try:
        return tuple(torch.broadcast_shapes(left, right))
    except RuntimeError:
        return left
