"""Load models of timm by name, with timm's image preparation."""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from torch import nn

from ohmformer.errors import BadInput, shown, suggest
from ohmformer.models.images import ImagePreparation
from ohmformer.models.preprocessing import Preparation, remember
from ohmformer.models.silence_loaders import quietly
from ohmformer.models.sources import first_line
from ohmformer.models.spec import ModelChoice
from ohmformer.models.torchvision_stub import stand_in


def timm_package() -> Any:
    """Import timm, even if torchvision is missing or broken.

    Raises:
        BadInput: timm is not installed, or cannot be imported.
    """
    try:
        with stand_in():
            return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise BadInput(f"timm cannot be imported ({error}); install ohmformer[vision] again") from error
        remedy = "pip install 'ohmformer[vision]', or without torchvision: pip install --no-deps timm"
        raise BadInput(f"models of timm need timm, which is not installed; {remedy}") from error
    except (ImportError, RuntimeError, AttributeError) as error:
        raise BadInput(f"timm cannot be imported ({first_line(error)}); install another version") from error


def load_timm(choice: ModelChoice, name: str, head: str) -> nn.Module:
    """Load a model of timm.

    Args:
        choice: the choice of the model, for its weights and seed.
        name: name in timm, without the prefix `timm:`.
        head: `image-classification` or `auto` for logits, `encoder` for features.

    Returns:
        The model, with its `Preparation`.

    Raises:
        BadInput: timm has no such model, the head does not exist, or pretrained weights are not available.
    """
    timm = timm_package()
    where = choice.where
    bare = name.removeprefix("hf-hub:").removeprefix("hf_hub:")
    if bare == name and not timm.is_model(name.split(".")[0]):
        raise BadInput(f"{where}: timm has no such model; {_close(timm, name)}")
    if head not in ("auto", "encoder", "image-classification"):
        raise BadInput(
            f"{where}: models of timm are for images and have no head for {head}; choose another model or task"
        )
    options: dict[str, Any] = {"num_classes": 0} if head == "encoder" else {}
    pretrained = choice.weights == "pretrained"
    try:
        with torch.random.fork_rng(devices=[]), quietly():
            torch.manual_seed(choice.seed)
            model = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:
        why = first_line(error)
        if not pretrained:
            raise BadInput(f"{where}: timm cannot build this model ({why}); choose another") from error
        raise BadInput(
            f"{where}: its pretrained weights are neither in the local cache nor reachable "
            f"({why}); download them once with a network, or set model.weights = 'random'"
        ) from error
    return remember(model, _preparation(timm, model, choice))


def _close(timm: Any, name: str) -> str:
    """Suggest a model of a similar name."""
    hint = suggest(name, timm.list_models()).partition("known: ")[0].strip()
    return hint or "timm.list_models() names them"


def _preparation(timm: Any, model: nn.Module, choice: ModelChoice) -> Preparation:
    """Prepare images as timm's evaluation does: resize to 1 / crop_pct of the input size, then crop the center."""
    config = timm.data.resolve_data_config({}, model=model)
    _, height, width = config["input_size"]
    larger = tuple(math.floor(edge / config["crop_pct"]) for edge in (height, width))
    mode = config.get("crop_mode", "center")
    if mode not in ("center", "squash"):
        raise BadInput(f"{choice.where}: expects images with crop mode {shown(mode)}; choose another model")
    images = ImagePreparation(
        resize=larger if mode == "squash" or height != width else larger[0],
        crop=(height, width),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
    notes = () if choice.weights == "pretrained" else (f"weights of {choice.source} are random (seed {choice.seed})",)
    return Preparation(images=images, classes=getattr(model, "num_classes", None) or None, notes=notes)
