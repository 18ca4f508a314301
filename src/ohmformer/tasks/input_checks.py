"""Checks of the inputs of one set of samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ohmformer.capture.inputs import Inputs, leaves, size
from ohmformer.errors import BadInput, given


def check_inputs(name: str, what: str, inputs: Inputs) -> None:
    """Check that inputs are samples with finite values.

    Args:
        name: name of the task, for messages.
        what: which set of samples, for messages.
        inputs: a tensor [N, ...], an object with a length and slices, or mappings and lists of these.

    Raises:
        BadInput: there are no samples, their numbers differ, or a tensor is without values, not dense, NaN or infinite.
    """
    named = [(f"{what} set's {path}" if path else f"{what} set", leaf) for path, leaf in leaves(inputs)]
    for where, leaf in named:
        if isinstance(leaf, Tensor) and (leaf.layout is not torch.strided or leaf.is_nested):
            raise BadInput(f"{name}: the {where} is sparse or nested; give a dense tensor [samples, ...]")
    if size(inputs) == 0:
        if not any(_is_list_of_samples(leaf) for _, leaf in named):
            kind = f"{given(inputs)} without a first axis" if isinstance(inputs, Tensor) else given(inputs)
            remedy = "give a tensor [samples, ...], or a mapping of such tensors"
            raise BadInput(f"{name}: the {what} set is {kind}; {remedy}")
        raise BadInput(f"{name}: the {what} set is empty; give it at least one sample")
    for where, leaf in named:
        if not isinstance(leaf, Tensor):
            continue
        if leaf.is_meta:
            raise BadInput(f"{name}: the {what} set is on the meta device and holds no values; give real ones")
        if (leaf.is_floating_point() or leaf.is_complex()) and not bool(_finite(leaf)):
            raise BadInput(f"{name}: the {where} holds NaN or infinity; correct or remove those samples")


def _is_list_of_samples(leaf: Any) -> bool:
    """True if a value has a first axis, though it may be empty."""
    if isinstance(leaf, Tensor):
        return leaf.dim() > 0
    return hasattr(leaf, "__len__") and hasattr(leaf, "__getitem__") and not isinstance(leaf, (str, bytes))


def _finite(values: Tensor) -> Tensor:
    """True if all values are finite. Types of one byte are converted, since PyTorch has no such test for them."""
    return (values.float() if values.element_size() == 1 else values).isfinite().all()
