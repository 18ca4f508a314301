"""Tensors whose values and memory cannot be looked at, and operations that PyTorch did not define."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ohmformer.capture.torch_private import own_dispatch, wrapped

_OWN = {"aten", "prim", "prims", "prim_ops", "profiler", "c10d", "_c10d_functional", "inductor"}
"""Namespaces of operations whose products are seen, or that multiply nothing."""

_NO_PRODUCTS = {"torchvision::nms", "torchvision::roi_align", "torchvision::roi_pool"}

_QUANTIZED = {"quantized", "_quantized"}


def opaque(t: Tensor) -> str:
    """What keeps a tensor from being looked at; "" for plain ones."""
    if t.is_nested:
        return "a nested tensor"
    if t.layout != torch.strided:
        return "a sparse tensor"
    if t.is_quantized:
        return "a quantized tensor"
    if wrapped(t):
        return "a tensor inside torch.vmap or another transform of torch.func"
    if own_dispatch(t):
        return f"a tensor of type {type(t).__name__}"
    return ""


def foreign(func: Any) -> str:
    """The full name of an operation that PyTorch did not define and that may multiply; "" for others."""
    namespace = getattr(func, "namespace", "")
    if not namespace or namespace in _OWN:
        return ""
    name = f"{namespace}::{func.overloadpacket.__name__}"
    return "" if name in _NO_PRODUCTS else name


def may_multiply(func: Any, live: int, matrices: int) -> bool:
    """Whether an operation that PyTorch did not define may hide a product.

    Args:
        func: the operation.
        live: how many floating tensors it takes that depend on the input of the model.
        matrices: how many floating matrices that do not, such as weights.
    """
    if func.namespace in _QUANTIZED:
        return live > 0
    return live > 1 or (live > 0 and matrices > 0)


def stored_values(t: Tensor) -> Tensor:
    """The values that a parameter or a buffer holds, as a plain tensor."""
    t = t.detach()
    if t.is_quantized:
        return t.dequantize()
    if t.layout == torch.strided:
        return t
    return t.coalesce().values() if t.layout == torch.sparse_coo else t.values()


def shape_of(t: Tensor) -> tuple[int, ...]:
    """The shape of a tensor; empty where it has none, as some nested ones."""
    try:
        return tuple(t.shape)
    except RuntimeError:
        return ()
