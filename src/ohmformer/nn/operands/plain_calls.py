"""Refusals of calls and tensors without accessible values, in one line, since crossbars compute with values.

Cells are written with the values of a tensor and read with noise that is drawn in the call. A transform or a tracer
would fail inside the simulation, or repeat one draw of the noise in all later calls.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from ohmformer.capture.opaque_tensors import opaque
from ohmformer.capture.torch_private import plain, transform, tree_leaves, valueless
from ohmformer.errors import BadInput

DIGITAL = "use the digital model, which revert() returns"


def refuse_transforms(*arguments: Any) -> None:
    """Refuse a call inside a transform or a tracer of PyTorch.

    Args:
        arguments: arguments of the call; a proxy of `torch.fx` among them shows that it traces.

    Raises:
        BadInput: the call is inside a transform or a tracer.
    """
    transform_name, remedy = transform(), DIGITAL
    proxy = getattr(sys.modules.get("torch.fx"), "Proxy", ())
    for argument in arguments:
        if isinstance(argument, proxy):
            transform_name = "torch.fx.symbolic_trace"
    if not transform_name:
        return
    if "deriv" in transform_name:
        remedy = f"take gradients with backward() or torch.autograd.grad, or {DIGITAL}"
    raise BadInput(
        f"a model on crossbars does not support {transform_name}: its cells need values in every call; {remedy}"
    )


def refuse_valueless(arguments: Any) -> None:
    """Refuse arguments of a model that have shapes but no values, and a call in which new tensors have none.

    Raises:
        BadInput: a tensor among them has no values, or tensors are made on the meta device by default.
    """
    if torch.get_default_device().type == "meta":
        raise BadInput(
            "a model on crossbars is called where PyTorch makes tensors without values, inside torch.device('meta') or "
            "after torch.set_default_device('meta'); convert and call it outside"
        )
    for leaf in tree_leaves(arguments):
        if isinstance(leaf, Tensor) and valueless(leaf):
            raise BadInput(
                f"an input of shape {tuple(leaf.shape)} has no values (meta or fake device), and crossbars compute "
                f"with values; give real inputs, or {DIGITAL}"
            )


def refuse_hidden(name: str, *tensors: Tensor) -> None:
    """Refuse factors of a product whose values are not accessible.

    Args:
        name: name of the operand.
        tensors: the factors.

    Raises:
        BadInput: a factor is meta, sparse, nested, quantized, or of a class with its own dispatch.
    """
    for t in tensors:
        if plain(t):
            continue
        kind = "a tensor without values (meta device)" if t.is_meta else opaque(t)
        if kind:
            raise BadInput(f"{name}: gets {kind}; give a dense tensor with values, or {DIGITAL}")


def refuse_scripting(module: Any) -> Any:
    """Refuse to compile a module on crossbars: `torch.jit.script` calls this before it does so.

    Raises:
        BadInput: always.
    """
    raise BadInput(f"torch.jit.script does not support {type(module).__name__}, which is on crossbars; {DIGITAL}")
