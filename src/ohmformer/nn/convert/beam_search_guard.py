"""What text generation may not do with a cache whose tokens stand in cells."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NoReturn

from torch import nn

from ohmformer.errors import BadInput
from ohmformer.nn.modules.class_swap import OWN
from ohmformer.nn.operands.state import Moved

_REORDERING = {"_beam_search": "beam search", "_reorder_cache": "reordering of the cache"}
"""Methods of Hugging Face models that move cached tokens from one sample to another."""


def reorders(model: nn.Module) -> bool:
    """Whether a model has methods that move cached tokens from one sample to another."""
    return any(hasattr(type(model), method) for method in _REORDERING)


def check_cache(moved: Mapping[str, frozenset[Moved]], *, numbered: bool) -> None:
    """Refuse cached tokens that all K and V of a call know as other tokens: noise of both would mix.

    One that does not know them as such clears the others, since words may come again in another order, and K and V of a
    first layer do not depend on noise. For the same reason a model of one layer may move tokens between samples.

    Args:
        moved: by operand, how its cells contradict the cached tokens of the call.
        numbered: the call says which numbers its tokens have.

    Raises:
        BadInput: all of them do so in the same way.
    """
    how = frozenset.intersection(*moved.values()) if moved else frozenset()
    name = next(iter(moved), "")
    if "number" in how:
        raise BadInput(
            f"{name}: the cache holds other tokens than were written under their numbers, which stand elsewhere in it "
            "now; keep tokens in order and say by cache_position or position_ids which ones are new"
        )
    if "overwritten" in how and not numbered:
        raise BadInput(
            f"{name}: the cache holds other tokens than were written, before some that are the same, like a ring, and "
            "the call does not say which are new; pass their positions as cache_position"
        )
    if "sample" in how and len(moved) > 2:
        raise BadInput(
            f"{name}: the cache holds other tokens than were written for this sample, namely those of another one; "
            "beam search and other reordering of a cache would move what stands in cells: use greedy search or "
            "sampling, and name the samples of texts that take turns"
        )


@cache
def guarded_class(cls: type[nn.Module]) -> type[nn.Module]:
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
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__reduce__": reduce, OWN: True}
    return type(cls.__name__, (cls,), {**methods, **names})


def _blank(cls: type[nn.Module]) -> nn.Module:
    """An empty model that refuses reordering, for pickle to fill."""
    made = guarded_class(cls)  # type: ignore[arg-type]
    return made.__new__(made)
