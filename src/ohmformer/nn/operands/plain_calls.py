"""Crossbars compute with values: calls and tensors that have none, or hide them, are refused in one line.

Cells are written with the values of a tensor and read with noise that is drawn in the call. A transform or a tracer
would fail inside of that, or keep one draw of the noise for good.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from ohmformer.capture.opaque_tensors import opaque
from ohmformer.capture.torch_private import plain, transform, valueless
from ohmformer.errors import BadInput

DIGITAL = "use the digital model, which revert() returns"


def refuse_transforms(*given: Any) -> None:
    """Refuse a call inside a transform or a tracer of PyTorch.

    Args:
        given: arguments of the call, of which a tracer may be one.

    Raises:
        BadInput: the call is inside of one.
    """
    what, remedy = transform(), DIGITAL
    proxy = getattr(sys.modules.get("torch.fx"), "Proxy", ())
    for each in given:
        if isinstance(each, proxy):
            what = "torch.fx.symbolic_trace"
    if not what:
        return
    if "deriv" in what:
        remedy = f"take gradients with backward() or torch.autograd.grad, or {DIGITAL}"
    raise BadInput(f"a model on crossbars does not support {what}: its cells need values in every call; {remedy}")


def refuse_valueless(given: Any) -> None:
    """Refuse arguments of a model that have shapes only.

    Raises:
        BadInput: a tensor among them has no values.
    """
    for leaf in tree_leaves(given):
        if isinstance(leaf, Tensor) and valueless(leaf):
            raise BadInput(
                f"an input of shape {tuple(leaf.shape)} has no values (meta or fake device), and crossbars compute "
                f"with values; give real inputs, or {DIGITAL}"
            )


def refuse_hidden(name: str, *factors: Tensor) -> None:
    """Refuse factors of a product whose values cannot be looked at.

    Raises:
        BadInput: one is meta, sparse, nested, quantized or of a class that computes in its own way.
    """
    for factor in factors:
        if plain(factor):
            continue
        why = "a tensor without values (meta device)" if factor.is_meta else opaque(factor)
        if why:
            raise BadInput(f"{name}: gets {why}; give a dense tensor with values, or {DIGITAL}")


def refuse_scripting(module: Any) -> Any:
    """What `torch.jit.script` calls of a module on crossbars before it compiles the module.

    Raises:
        BadInput: always.
    """
    raise BadInput(f"torch.jit.script does not support {type(module).__name__}, which is on crossbars; {DIGITAL}")
