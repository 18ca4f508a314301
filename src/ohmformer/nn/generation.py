"""What text generation may not do with a cache whose tokens stand in cells."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn

from ohmformer.errors import BadInput

_REORDERING = {"_beam_search": "beam search", "_reorder_cache": "reordering of the cache"}
"""Methods of Hugging Face models that move cached tokens from one sample to another."""


class _Refuse:
    """Stands in for a method that moves cached tokens."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refuse.

        Raises:
            BadInput: always.
        """
        raise BadInput(
            f"{self.what} would move the K and V of cached tokens between cells, where they were written once; use "
            "greedy search or sampling (num_beams=1)"
        )


def refuse_reordering(model: nn.Module) -> None:
    """Make a model refuse, by name, what moves cached tokens from one sample to another."""
    for method, what in _REORDERING.items():
        if hasattr(model, method):
            vars(model)[method] = _Refuse(what)


def allow_reordering(model: nn.Module) -> None:
    """Undo `refuse_reordering`."""
    for method in _REORDERING:
        if isinstance(vars(model).get(method), _Refuse):
            del vars(model)[method]
