"""How raw samples become inputs of one model: what was read beside its weights, kept by model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

from torch import nn

from ohmformer.errors import BadInput
from ohmformer.models.images import ImagePreparation


@dataclass(frozen=True)
class Preparation:
    """What a model expects.

    Attributes:
        images: how photographs become pixels; None for models of other things.
        tokenizer: of Hugging Face; None for models of other things.
        max_tokens: longest text that the model takes; None if it does not say.
        classes: how many classes it tells apart; None if unknown, or if it has no such head.
        names: of the classes, in order; empty if it does not say.
        pooling: how token features become those of a sample, where the model's folder says so.
        notes: what a reader of results must know of the model, such as that its weights are random.
    """

    images: ImagePreparation | None = None
    tokenizer: Any = None
    max_tokens: int | None = None
    classes: int | None = None
    names: tuple[str, ...] = ()
    pooling: Literal["mean", "cls"] | None = None
    notes: tuple[str, ...] = ()


_known: WeakKeyDictionary[nn.Module, Preparation] = WeakKeyDictionary()


def remember(model: nn.Module, preparation: Preparation) -> nn.Module:
    """The model, of which it is now known what it expects."""
    _known[model] = preparation
    return model


def preparation(model: nn.Module | None) -> Preparation:
    """What a model expects; nothing is known of models that `load_model` did not make."""
    return _known.get(model, Preparation()) if model is not None else Preparation()


def tokenizer_of(model: nn.Module | None, source: str) -> Any:
    """The tokenizer of a model.

    Raises:
        BadInput: it has none.
    """
    found = preparation(model).tokenizer
    if found is None:
        raise BadInput(
            f"task.source = {source!r}: needs a model that reads text, with its tokenizer: load_task(..., model=...), "
            "or model.source = 'hf:...'"
        )
    return found
