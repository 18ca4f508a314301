"""Where a training starts: weights of DINOv2, with a new head, or a classifier that was made here before."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from torch import nn

from ohmformer.errors import BadInput
from ohmformer.models.images import ImagePreparation
from ohmformer.models.load import load_model, tensor_bytes
from ohmformer.models.preprocessing import preparation

CLASSIFIER = "Dinov2ForImageClassification"


@dataclass(frozen=True)
class Start:
    """What is trained.

    Attributes:
        model: a classifier.
        images: how it takes images.
        head: `kept` where the given weights are a classifier of the same classes, or else `new`.
        digest: SHA-256 over the given weights, the head only if it is kept.
    """

    model: nn.Module
    images: ImagePreparation
    head: str
    digest: str


def starting_model(weights: Path, names: list[str], size: int, seed: int) -> Start:
    """DINOv2 with positions for images of so many pixels, and a head: that of the weights if it tells the same classes.

    Args:
        weights: a folder of DINOv2, or of a classifier.
        names: of the classes, in order.
        size: pixels along an edge.
        seed: of a new head.

    Raises:
        BadInput: the folder holds no DINOv2, does not say how to prepare images, or the size does not fit its patches.
    """
    if not weights.is_dir():
        raise BadInput(f"--weights {weights}: there is no such folder; make it with reproductions/real_models/fetch.py")
    given = load_model(f"hf:{weights}")
    config, images = given.config, preparation(given).images
    if config.model_type != "dinov2":
        raise BadInput(f"--weights {weights}: is a {config.model_type} model; name a folder of DINOv2")
    if images is None:
        raise BadInput(f"--weights {weights}: has no preprocessor_config.json; add it")
    if size % config.patch_size:
        raise BadInput(f"--size {size}: is no multiple of the patch, {config.patch_size} pixels; correct it")
    classifies = isinstance(given, transformers.Dinov2ForImageClassification)
    backbone = given.dinov2 if classifies else given
    kept = given.classifier if classifies and list(config.id2label.values()) == names else None
    state = backbone.state_dict()
    learned = {
        **state,
        **{f"classifier.{name}": tensor for name, tensor in (kept.state_dict() if kept else {}).items()},
    }
    model = _classifier(config, names, size, seed)
    # Interpolated once, as the model itself would for every batch of this size.
    tokens = torch.empty(1, 1 + (size // config.patch_size) ** 2, config.hidden_size)
    with torch.no_grad():
        positions = backbone.embeddings.interpolate_pos_encoding(tokens, size, size)
    model.dinov2.load_state_dict({**state, "embeddings.position_embeddings": positions})
    if kept:
        model.classifier.load_state_dict(kept.state_dict())
    prepared = replace(images, resize=size, crop=(size, size))
    return Start(model, prepared, "kept" if kept else "new", _digest(learned))


def _classifier(config: transformers.Dinov2Config, names: list[str], size: int, seed: int) -> nn.Module:
    config.update({"image_size": size, "architectures": [CLASSIFIER]})
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    torch.manual_seed(seed)
    model: nn.Module = transformers.Dinov2ForImageClassification(config)
    return model


def _digest(state: dict[str, torch.Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(f"{name} {tuple(tensor.shape)}\n".encode() + tensor_bytes(tensor))
    return found.hexdigest()
