"""Copies of a model's structure around the very same parameters."""

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
"""What makes parameters of weights that are computed before each call."""


def share_parameters(model: Model, *shared: object) -> Model:
    """A copy of the model's structure around the very same parameters and buffers, and whatever else is shared.

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
        return copy.deepcopy(model, {id(one): one for one in (*model.parameters(), *model.buffers(), *shared)})
    except Exception as error:
        computed = computed_attribute(model)
        if computed:
            raise BadInput(
                f"{computed} is computed from other parameters (pruning, weight or spectral norm), so the model cannot "
                f"be copied; make it a parameter first: {REMOVALS}"
            ) from error
        why = (str(error).splitlines() or [""])[0]
        raise BadInput(f"the model cannot be copied ({type(error).__name__}: {why}); make it copyable first") from error


def computed_attribute(model: nn.Module) -> str:
    """Name of a tensor that a module keeps although it was computed with gradients; "" without any."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, torch.Tensor) and value.grad_fn is not None:
                return f"{name}.{key}".lstrip(".")
    return ""
