"""How raw samples become inputs of one model: what was read beside its weights, kept with the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from ohmformer.errors import BadInput
from ohmformer.models.images import ImageReader

NO_IMAGES = (
    "needs a model of which it is known how it prepares images; take a model of timm, or one of Hugging Face with a "
    "preprocessor_config.json"
)
NO_TEXT = "needs a model that reads text, with its tokenizer: load_task(..., model=...), or model.source = 'hf:...'"
"""What is said of models that take no images, or no text."""

ATTRIBUTE = "ohmformer_preparation"
"""Attribute of a model that holds its `Preparation`, so that copies and pickles of the model have it, too."""


@dataclass(frozen=True)
class Preparation:
    """What a model expects.

    Attributes:
        images: how photographs become pixels; None for models of other things.
        tokenizer: of Hugging Face; None for models of other things.
        max_tokens: longest text that the model takes; None if it does not say.
        words: rows of the table of word vectors: tokens are numbered below it; None if unknown.
        classes: how many classes it tells apart; None if unknown, or if it has no such head.
        names: of the classes, in order; empty if it does not say.
        pooling: how token features become those of a sample, where the model's folder says so.
        notes: what a reader of results must know of the model, such as that its weights are random.
        missing: `images` or `tokenizer` -> why there is none although the model takes images or text, and the remedy.
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
        """Itself: nothing in it changes, so copies of a model share it."""
        return self


def remember(model: nn.Module, preparation: Preparation) -> nn.Module:
    """The model, of which it is now known what it expects."""
    setattr(model, ATTRIBUTE, preparation)
    return model


def preparation(model: nn.Module | None) -> Preparation:
    """What a model expects; nothing is known of models that `load_model` did not make."""
    found = getattr(model, ATTRIBUTE, None)
    return found if isinstance(found, Preparation) else Preparation()


def images_of(model: nn.Module | None, source: str) -> ImageReader:
    """How photographs become inputs of a model.

    Raises:
        BadInput: it is not known.
    """
    prepared = preparation(model)
    if prepared.images is None:
        raise BadInput(f"task.source = {source!r}: {prepared.missing.get('images', NO_IMAGES)}")
    return prepared.images


def tokenizer_of(model: nn.Module | None, source: str) -> Any:
    """The tokenizer of a model.

    Raises:
        BadInput: it has none.
    """
    prepared = preparation(model)
    if prepared.tokenizer is None:
        raise BadInput(f"task.source = {source!r}: {prepared.missing.get('tokenizer', NO_TEXT)}")
    return prepared.tokenizer
