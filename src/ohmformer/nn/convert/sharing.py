"""Copies of the structure of a model that share its parameters."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from ohmformer.errors import BadInput

Model = TypeVar("Model", bound=nn.Module)

REMOVALS = (
    "torch.nn.utils.prune.remove, remove_weight_norm, remove_spectral_norm or parametrize.remove_parametrizations"
)
"""Functions that replace weights computed before each call by parameters."""


def share_parameters(model: Model, *shared: object) -> Model:
    """Copy the structure of a model around the very same parameters and buffers.

    Args:
        model: the model.
        shared: further objects that the copy shares.

    Raises:
        BadInput: the model cannot be copied.
    """
    scripted = next(
        (name for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)), None
    )
    if scripted is not None:
        where = f"{scripted} of the model" if scripted else "the model"
        raise BadInput(f"{where} is compiled by TorchScript, which hides its products; convert the original")
    try:
        return copy.deepcopy(model, {id(obj): obj for obj in (*model.parameters(), *model.buffers(), *shared)})
    except Exception as error:
        name = computed_attribute(model)
        if name and not _recomputed(model, name):
            raise BadInput(
                f"{name} is a tensor with gradients that an earlier call left, so the model cannot be copied; set it "
                "to None, or to its detach()"
            ) from error
        if name:
            raise BadInput(
                f"{name} is computed from other parameters (pruning, weight or spectral norm), so the model cannot "
                f"be copied; make it a parameter first: {REMOVALS}"
            ) from error
        reason = (str(error).splitlines() or [""])[0]
        raise BadInput(
            f"the model cannot be copied ({type(error).__name__}: {reason}); make it copyable first"
        ) from error


def computed_attribute(model: nn.Module) -> str:
    """Return the name of an attribute of a module that is a tensor computed with gradients; "" without one."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, torch.Tensor) and value.grad_fn is not None:
                return f"{name}.{key}".lstrip(".")
    return ""


def _recomputed(model: nn.Module, name: str) -> bool:
    """True if hooks compute an attribute from parameters of its module, such as weight_orig or weight_g."""
    path, _, key = name.rpartition(".")
    return any(parameter.startswith(f"{key}_") for parameter in model.get_submodule(path)._parameters)
