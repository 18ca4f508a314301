"""Load models of timm by name, with timm's image preparation."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ohmformer.errors import BadInput, shown, suggest
from ohmformer.models.images import ImagePreparation
from ohmformer.models.preprocessing import Preparation, remember
from ohmformer.models.silence_loaders import quietly
from ohmformer.models.sources import first_line, is_file, is_folder
from ohmformer.models.spec import ModelChoice
from ohmformer.models.torchvision_stub import stand_in
from ohmformer.models.weight_files import (
    UNUSED,
    check_downloaded,
    check_regular,
    check_types,
    check_undamaged,
    first_of,
)
from ohmformer.textfiles import home_expanded, read_json

LOCAL = "local-dir:"
"""Beginning of names of folders."""

HUB = ("hf-hub:", "hf_hub:")
"""Beginnings of names on the hub."""


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
        name: name in timm, without the prefix `timm:`; `hf-hub:NAME` on the hub; `local-dir:FOLDER` for a folder with
            timm's config.json and weights.
        head: `image-classification` or `auto` for logits, `encoder` for features.

    Returns:
        The model, with its `Preparation`.

    Raises:
        BadInput: timm has no such model, the head does not exist, pretrained weights are not available, or they do not
            belong to the model.
    """
    timm = timm_package()
    where = choice.where
    folder = _folder(choice, name)
    if folder is not None:
        _check_folder(timm, choice, folder)
        name = f"{LOCAL}{folder}"
    elif not name.startswith(HUB) and not timm.is_model(name.split(".")[0]):
        raise BadInput(f"{where}: timm has no such model; {_close(timm, name)}")
    if head not in ("auto", "encoder", "image-classification"):
        raise BadInput(
            f"{where}: models of timm are for images and have no head for {head}; choose another model or task"
        )
    options: dict[str, Any] = {"num_classes": 0} if head == "encoder" else {}
    pretrained = choice.weights == "pretrained"
    try:
        with torch.random.fork_rng(devices=[]), quietly(), _loading_reported() as reports:
            torch.manual_seed(choice.seed)
            model = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:
        raise _failure(choice, folder, error) from error
    if pretrained:
        _check_complete(where, model, reports, head)
        if folder is not None:
            check_types(folder, model)
    try:
        return remember(model, _preparation(timm, model, choice))
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error
    except Exception as error:  # any value may stand in the folder's config.json
        why = first_line(error)
        raise BadInput(
            f"{where}: its image preparation cannot be used ({why}); correct pretrained_cfg in config.json"
        ) from error


def _folder(choice: ModelChoice, name: str) -> Path | None:
    """Return the folder that a name refers to; None for names of timm and of the hub.

    Raises:
        BadInput: there is no such folder, or a path stands without the prefix of folders.
    """
    if not name.startswith(LOCAL):
        if name.startswith((".", "/", "~")) or is_folder(home_expanded(name)):
            raise BadInput(f"{choice.where}: looks like a path; write timm:{LOCAL}FOLDER")
        return None
    folder = home_expanded(name.removeprefix(LOCAL))
    if not is_folder(folder):
        raise BadInput(f"{choice.where}: there is no such folder; correct the path")
    return folder


def _check_folder(timm: Any, choice: ModelChoice, folder: Path) -> None:
    """Refuse a folder without the configuration of a model of timm, or whose files were not downloaded."""
    check_regular(folder)
    file = folder / "config.json"
    if not is_file(file):
        raise BadInput(f"{choice.where}: {folder} has no config.json; name the folder of a model")
    content = read_json(file)
    architecture = content.get("architecture") if isinstance(content, dict) else None
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        remedy = "for a model of transformers write hf:FOLDER" if architecture is None else _close(timm, architecture)
        raise BadInput(f"{file}: architecture = {shown(architecture)}: must be a model of timm; {remedy}")
    if choice.weights == "pretrained":
        check_downloaded(folder)


@contextmanager
def _loading_reported() -> Iterator[list[tuple[list[str], list[str]]]]:
    """Collect what modules report when they load weights: missing and unexpected names.

    timm drops these reports where it adapts a model, such as to another number of classes. `load_state_dict` is
    replaced inside the context, for this process.
    """
    reports: list[tuple[list[str], list[str]]] = []
    original = nn.Module.load_state_dict

    def reporting(self: nn.Module, *arguments: Any, **options: Any) -> Any:
        result = original(self, *arguments, **options)
        reports.append((list(result.missing_keys), list(result.unexpected_keys)))
        return result

    setattr(nn.Module, "load_state_dict", reporting)  # noqa: B010
    try:
        yield reports
    finally:
        setattr(nn.Module, "load_state_dict", original)  # noqa: B010


def _failure(choice: ModelChoice, folder: Path | None, error: Exception) -> BadInput:
    """Return the message for a model that timm could not create."""
    why, where = first_line(error), choice.where
    if choice.weights == "random":
        return BadInput(f"{where}: timm cannot build this model ({why}); choose another")
    if folder is not None:
        try:
            check_undamaged(folder)
        except BadInput as damage:
            return damage
    if folder is not None or "loading state_dict" in why:
        return BadInput(
            f"{where}: the weights cannot be loaded into the model ({why}); take the config.json that belongs to the "
            "weights, or set model.weights = 'random'"
        )
    return BadInput(
        f"{where}: its pretrained weights are neither in the local cache nor reachable "
        f"({why}); download them once with a network, or set model.weights = 'random'"
    )


def _check_complete(where: str, model: Any, reports: list[tuple[list[str], list[str]]], head: str) -> None:
    """Refuse a model that lacks weights, or weights that have no place in it.

    Raises:
        BadInput: the weights and the model do not belong together.
    """
    config = model.pretrained_cfg
    if not reports and not config.get("custom_load"):
        raise BadInput(f"{where}: timm has loaded no weights; set model.weights = 'random', or choose another model")
    missing = [name for names, _ in reports for name in names]
    unexpected = [name for _, names in reports for name in names if name.split(".")[-1] not in UNUSED]
    if missing:
        classes = f"; it has {model.num_classes} classes, the weights {config.get('num_classes')}"
        raise BadInput(
            f"{where}: has no trained weights for {first_of(missing)} (head {head})"
            f"{classes if head != 'encoder' else ''}; take the config.json that belongs to the weights"
        )
    if unexpected:
        raise BadInput(
            f"{where}: the files hold weights that have no place in the model ({first_of(unexpected)}); take the "
            "config.json that belongs to the weights"
        )


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
        raise BadInput(f"expects images with crop mode {shown(mode)}; choose another model")
    images = ImagePreparation(
        resize=larger if mode == "squash" or height != width else larger[0],
        crop=(height, width),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
    notes = () if choice.weights == "pretrained" else (f"weights of {choice.source} are random (seed {choice.seed})",)
    return Preparation(images=images, classes=getattr(model, "num_classes", None) or None, notes=notes)
