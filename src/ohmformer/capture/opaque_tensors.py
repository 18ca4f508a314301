"""Tensors whose values and memory cannot be read, and operators that PyTorch does not define."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ohmformer.capture.torch_private import own_dispatch, wrapped

_PYTORCH = {"aten", "prim", "prims", "prim_ops", "profiler", "c10d", "_c10d_functional", "inductor"}
"""Namespaces of the operators of PyTorch: their products are recorded, or they multiply nothing."""

_NO_PRODUCTS = {"torchvision::nms", "torchvision::roi_align", "torchvision::roi_pool"}

_QUANTIZED = {"quantized", "_quantized"}


def opaque(t: Tensor) -> str:
    """The reason why the values and the memory of a tensor cannot be read; "" if they can."""
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


def custom_operator(func: Any) -> str:
    """The full name of an operator that another library defines and that may multiply; "" for all other operators."""
    namespace = getattr(func, "namespace", "")
    if not namespace or namespace in _PYTORCH:
        return ""
    name = f"{namespace}::{func.overloadpacket.__name__}"
    return "" if name in _NO_PRODUCTS else name


def may_multiply(func: Any, activations: int, matrices: int) -> bool:
    """True if an operator that PyTorch does not define may hide a product.

    Args:
        func: the operator.
        activations: number of floating tensors among its arguments that depend on the input of the model.
        matrices: number of floating matrices among them that do not, such as weights.
    """
    if func.namespace in _QUANTIZED:
        return activations > 0
    return activations > 1 or (activations > 0 and matrices > 0)


def stored_values(t: Tensor) -> Tensor:
    """The values of a parameter or a buffer as a dense, unquantized tensor; of a sparse one, those that it stores.

    Floats of 8 bits, for which PyTorch has neither comparisons nor maxima, become float32.
    """
    t = t.detach()
    if t.is_quantized:
        return t.dequantize()
    if t.layout != torch.strided:
        t = t.coalesce().values() if t.layout == torch.sparse_coo else t.values()
    return t.float() if t.is_floating_point() and t.element_size() == 1 else t


def all_finite(t: Tensor) -> bool:
    """True if no stored value of a tensor is NaN or infinite."""
    return bool(stored_values(t).isfinite().all())


def shape_of(t: Tensor) -> tuple[int, ...]:
    """The shape of a tensor; empty if it has none, like some nested tensors."""
    try:
        return tuple(t.shape)
    except RuntimeError:
        return ()
