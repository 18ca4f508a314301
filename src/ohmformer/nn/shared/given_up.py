"""Weights that were given up once cells held them: what is refused without them, and why in one line.

A parameter on the meta device stands in the place of such weights. It requires gradients if the weights did.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from ohmformer.errors import BadInput

FREEZE = "p.requires_grad_(False) for each p of model.parameters() with p.is_meta"
"""How weights that were given up are frozen, so that others can be trained."""


class GradientsLeftOut(UserWarning):
    """Gradients reach some parameters of a model, but not the weights that were given up."""


def needs_weights(name: str) -> str:
    """Return the message for what needs the weights of an operand that were given up."""
    return (
        f"{name}: its weights were given up (keep_original=False), and cells hold those of one seed, chip and "
        "level alone; for others, and for calibration, training and saving, load the model again, and leave "
        "keep_original out"
    )


def placeholder(weight: Tensor) -> nn.Parameter:
    """Return a parameter without values that takes the place of weights."""
    return nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=weight.requires_grad)


def check_frozen(name: str, weight: Tensor, *, training: bool) -> None:
    """Refuse a call for training of a layer that gave up weights which require gradients.

    Args:
        name: name of its operand.
        weight: what stands in the place of its weights.
        training: True if the layer is in train mode.

    Raises:
        BadInput: they require gradients, the layer is in train mode, and gradients are recorded.
    """
    if training and weight.requires_grad and torch.is_grad_enabled():
        raise BadInput(
            f"{name}: its weights were given up (keep_original=False), so they get no gradients; to train them load "
            "the model again, and leave keep_original out; to train other parameters alone freeze these "
            f"({FREEZE}); to evaluate call model.eval()"
        )


def check_meta(name: str, weight: Tensor) -> None:
    """Refuse other weights in the place of those that were given up: cells would not hold them.

    Raises:
        BadInput: the weights have values.
    """
    if not weight.is_meta:
        raise BadInput(
            f"{name}: got other weights, but its own were given up (keep_original=False), so that cells cannot be "
            "written again; load the model again with these weights, and convert it"
        )


def warn_of_gradients(_grad: Tensor) -> None:
    """Hook of the results of a layer in eval mode: warn that gradients pass weights which get none."""
    warnings.warn(
        "gradients reach inputs and the weights that are left, but not those that were given up "
        f"(keep_original=False), which stay as they are; to train them load the model again; to go on, freeze them: "
        f"{FREEZE}",
        GradientsLeftOut,
        stacklevel=2,
    )
