"""How raw samples become inputs of a model: image reader and tokenizer, kept as an attribute of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from ohmformer.errors import BadInput, check_type, shown
from ohmformer.models.images import ImageReader

NO_IMAGES = (
    "needs a model with a known image preparation; choose a model of timm, or one of Hugging Face with a "
    "preprocessor_config.json"
)
NO_TEXT = "needs a model that reads text, with its tokenizer: load_task(..., model=...), or model.source = 'hf:...'"
"""Remedies for models without an image preparation, and without a tokenizer."""

ATTRIBUTE = "ohmformer_preparation"
"""Attribute of a model that holds its `Preparation`. Copies and pickles of the model keep it."""


@dataclass(frozen=True)
class Preparation:
    """What a model expects of its inputs.

    Attributes:
        images: how image files become pixels; None for models that take no images.
        tokenizer: Hugging Face tokenizer; None for models that take no text.
        max_tokens: length of the longest text that the model takes [tokens]; None if unknown.
        words: number of rows of the token embedding, above every token number; None if unknown.
        classes: number of classes; None if unknown, or if the model is not a classifier.
        names: names of the classes, in order; empty if unknown.
        pooling: how token features become the features of a sample, from the model's folder; None if unknown.
        notes: remarks that belong beside results, such as that weights are random.
        missing: `images` or `tokenizer` -> why a model that takes images or text has none, and the remedy.
    """

    images: ImageReader | None = None
    tokenizer: Any = None
    max_tokens: int | None = None
    words: int | None = None
    classes: int | None = None
    names: tuple[str, ...] = ()
    pooling: Literal["mean", "cls"] | None = None
    notes: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Preparation:
        """Return this object: it is immutable, so copies of a model share it."""
        return self


def remember(model: nn.Module, preparation: Preparation) -> nn.Module:
    """Attach a preparation to a model, so that `load_task(..., model=model)` can prepare its inputs.

    Returns:
        The same model.

    Raises:
        BadInput: an argument has the wrong type.
    """
    check_type("remember", "model", model, nn.Module, "an nn.Module")
    check_type("remember", "preparation", preparation, Preparation, "Preparation(images=..., tokenizer=...)")
    setattr(model, ATTRIBUTE, preparation)
    return model


def preparation(model: nn.Module | None) -> Preparation:
    """Return the preparation of a model; an empty one if `load_model` or `remember` attached none."""
    attached = getattr(model, ATTRIBUTE, None)
    return attached if isinstance(attached, Preparation) else Preparation()


def images_of(model: nn.Module | None, source: str) -> ImageReader:
    """Return the image reader of a model.

    Args:
        model: a model from `load_model`, or None.
        source: source of the task, for messages.

    Raises:
        BadInput: the model has no known image preparation.
    """
    prepared = preparation(model)
    if prepared.images is None:
        raise BadInput(f"task.source = {shown(source)}: {prepared.missing.get('images', NO_IMAGES)}")
    return prepared.images


def tokenizer_of(model: nn.Module | None, source: str) -> Any:
    """Return the tokenizer of a model.

    Args:
        model: a model from `load_model`, or None.
        source: source of the task, for messages.

    Raises:
        BadInput: the model has no tokenizer.
    """
    prepared = preparation(model)
    if prepared.tokenizer is None:
        raise BadInput(f"task.source = {shown(source)}: {prepared.missing.get('tokenizer', NO_TEXT)}")
    return prepared.tokenizer
