"""Guards of KV caches in cells: refuse beam search and other reordering, which would move tokens between cells."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import nn

from ohmformer.errors import BadInput
from ohmformer.nn.modules.class_swap import CROSSBAR_CLASS
from ohmformer.nn.shared.state import Moved

_REORDERING = {"_beam_search": "beam search", "_reorder_cache": "reordering of the cache"}
"""Methods of Hugging Face models that move cached tokens from one sample to another."""

_CACHES = ("past_key_values", "cache_params", "state", "mems", "past_buckets_states")
"""Arguments of Hugging Face models that hold a cache."""


def can_reorder(model: nn.Module) -> bool:
    """True if a model has methods that move cached tokens from one sample to another."""
    return any(hasattr(type(model), method) for method in _REORDERING)


def check_cache(moved: Mapping[str, frozenset[Moved]], *, numbered: bool) -> None:
    """Refuse a cache whose tokens were written as other tokens, since the noise of both would mix.

    All K and V of the call must agree on that. In a first layer the same words give the same K and V, whatever their
    sample or order, so a single operand proves nothing; nor does a model of one layer, which may move tokens.

    Args:
        moved: operand -> the ways in which its cells contradict the cached tokens of the call.
        numbered: the arguments of the call number its tokens.

    Raises:
        BadInput: all operands contradict the cache in the same way.
    """
    ways = frozenset.intersection(*moved.values()) if moved else frozenset()
    name = next(iter(moved), "")
    if "number" in ways:
        raise BadInput(
            f"{name}: the cache holds tokens under other numbers than they were written under; keep tokens in order, "
            "and pass the positions of new ones as cache_position or position_ids"
        )
    if "overwritten" in ways and not numbered:
        raise BadInput(
            f"{name}: the cache holds other tokens than were written, in front of unchanged ones, as a ring does, but "
            "the call does not number its tokens; pass the positions of new ones as cache_position"
        )
    if "sample" in ways and len(moved) > 2:
        raise BadInput(
            f"{name}: the cache holds other tokens than were written for this sample, namely those of another one; "
            "beam search and other reordering would move tokens between cells; use greedy search or sampling, and name "
            "the samples of alternating texts"
        )


@cache
def guarded_class(cls: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass of a model's class, of the same name, that refuses to move cached tokens between samples.

    Beam search without a cache computes all tokens of all beams anew, so it moves none.
    """

    def guarded(method: str, action: str) -> Any:
        def run_or_refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
            if method == "_beam_search" and kwargs.get("use_cache") is False and not _holds_cache(kwargs):
                return getattr(cls, method)(self, *args, **kwargs)
            raise BadInput(
                f"{action} would move the K and V of cached tokens between cells, where they were written once; use "
                "greedy search or sampling (num_beams=1), or beam search with use_cache=False"
            )

        return run_or_refuse

    def reduce(self: Any) -> tuple[Any, ...]:
        return _empty_model, (cls,), self.__dict__

    methods = {method: guarded(method, action) for method, action in _REORDERING.items() if hasattr(cls, method)}
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__reduce__": reduce, CROSSBAR_CLASS: True}
    return type(cls.__name__, (cls,), {**methods, **names})


def _holds_cache(arguments: Mapping[str, Any]) -> bool:
    """True if the arguments of a call hold a cache under one of the names that Hugging Face uses."""
    return any(arguments.get(name) is not None for name in _CACHES)


def _empty_model(cls: type[nn.Module]) -> nn.Module:
    """Return an empty model of the guarded class, which pickle fills."""
    guarded = guarded_class(cls)  # type: ignore[arg-type]
    return guarded.__new__(guarded)
