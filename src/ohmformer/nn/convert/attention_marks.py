"""Marks on captured attention that follow from the sample batch: what is causal, and what is cross attention.

Shapes: M queries, N keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ohmformer.capture.dry_run import DryRun
from ohmformer.capture.product import Product
from ohmformer.capture.torch_private import tree_leaves
from ohmformer.nn.calls.call_info import call_info, encoder_of, named_arguments

ATTENTION = ("attention", "multihead attention")
"""Kinds of products that are whole attentions."""


def unmark_partial_attention(run: DryRun, model: nn.Module, sample: Any) -> None:
    """Mark attention as not causal if its keys are not the tokens of a whole text.

    Two cases are recognized. In a window, which is folded among samples or heads, there are fewer queries than tokens
    in the sample, or, if nothing numbers these, more keys than queries although there is no cache. And keys that are
    the same for all samples, such as codes of relative positions, are not text.
    """
    named = dict(sample) if isinstance(sample, Mapping) else {}
    args = () if named else tuple(sample) if isinstance(sample, (tuple, list)) else (sample,)
    info = call_info(model, named_arguments(model, args, named), [args, named], run.axis)
    for product in run.seen.products:
        if product.causal and product.left is not None and product.right is not None:
            M = product.left.shape[-2]
            N = product.left.shape[-1] if product.role == "value" else product.right.shape[-2]
            whole_text = len(info.numbers[0]) <= M if info.numbers else N == M or info.cached
            product.causal = whole_text and (product.role != "key" or run.places[product].right is not None)


def mark_cross_attention(run: DryRun, model: nn.Module, sample: Any) -> None:
    """Mark the products Q K^T whose keys belong to other tokens than the queries (`Product.across`).

    Only models whose queries may come one by one have such marks.
    """
    one_by_one = any(p.causal for p in run.seen.products) or all_cross_attention(run, sample)
    encoder = encoder_of(model)
    prefix = next((f"{name}." for name, module in model.named_modules() if module is encoder), None)
    for p in run.seen.products if one_by_one else ():
        if (p.kind in ATTENTION or p.role == "key") and not p.causal:
            in_decoder = prefix is not None and not f"{p.module}.".startswith(prefix)
            p.across = in_decoder or (prefix is None and _has_other_keys(p))


def all_cross_attention(run: DryRun, sample: Any) -> bool:
    """True if all attention of the model is cross attention, so that queries do not depend on one another.

    Queries and keys then come from different inputs, and differ on the sample in number or in value.
    """
    inputs = [leaf for leaf in tree_leaves(dict(sample) if isinstance(sample, Mapping) else sample)
              if isinstance(leaf, Tensor) and leaf.dim() > 1]  # fmt: skip
    crosses = [_has_other_keys(p) for p in run.seen.products if p.kind in ATTENTION or p.role == "key"]
    return len(inputs) > 1 and bool(crosses) and all(crosses)


def _has_other_keys(product: Product) -> bool:
    """True if the shapes or values of a product Q K^T show that the keys belong to other tokens than the queries."""
    left, right = product.left, product.right
    if left is None or right is None or len(left.shape) != len(right.shape):
        return False
    if left.shape[-2] != right.shape[-2]:
        return True
    same = left.values.shape == right.values.shape and torch.equal(left.values, right.values)
    return product.kind == "multihead attention" and not same
