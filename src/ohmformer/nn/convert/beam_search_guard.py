"""What text generation may not do with a cache whose tokens stand in cells."""

from __future__ import annotations

from functools import cache
from typing import Any, NoReturn

from torch import nn

from ohmformer.errors import BadInput

_REORDERING = {"_beam_search": "beam search", "_reorder_cache": "reordering of the cache"}
"""Methods of Hugging Face models that move cached tokens from one sample to another."""


def reorders(model: nn.Module) -> bool:
    """Whether a model has methods that move cached tokens from one sample to another."""
    return any(hasattr(type(model), method) for method in _REORDERING)


@cache
def steady_class(cls: type[nn.Module]) -> type[nn.Module]:
    """The subclass of a model's class, of the same name, that refuses to move cached tokens between samples."""

    def refusing(what: str) -> Any:
        def refuse(self: Any, *_args: Any, **_kwargs: Any) -> NoReturn:
            raise BadInput(
                f"{what} would move the K and V of cached tokens between cells, where they were written once; use "
                "greedy search or sampling (num_beams=1)"
            )

        return refuse

    def reduce(self: Any) -> tuple[Any, ...]:
        return _blank, (cls,), self.__dict__

    methods = {method: refusing(what) for method, what in _REORDERING.items() if hasattr(cls, method)}
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__reduce__": reduce}
    return type(cls.__name__, (cls,), {**methods, **names})


def _blank(cls: type[nn.Module]) -> nn.Module:
    """An empty model that refuses reordering, for pickle to fill."""
    made = steady_class(cls)  # type: ignore[arg-type]
    return made.__new__(made)
