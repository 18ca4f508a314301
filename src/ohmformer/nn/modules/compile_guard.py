"""What `torch.compile` leaves as it is: the simulation of crossbars, around which it compiles the rest of a model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def eager(function: F) -> F:
    """The function, never compiled. The compiler is not imported for it, which would take seconds."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not hasattr(sys.modules.get("torch._dynamo"), "disable"):  # not imported, or not yet
            return function(*args, **kwargs)
        disabled = vars(function).get("disabled")
        if disabled is None:
            disabled = vars(function)["disabled"] = sys.modules["torch"].compiler.disable(function)
        return disabled(*args, **kwargs)

    return run  # type: ignore[return-value]


def compiler_loaded() -> bool:
    """Whether PyTorch's compiler was imported, which takes seconds."""
    return hasattr(sys.modules.get("torch._dynamo"), "reset")


def forget_compiled() -> None:
    """Forget what was compiled, and what failed to."""
    sys.modules["torch._dynamo"].reset()


@contextmanager
def uncompiled() -> Iterator[None]:
    """Inside, nothing is compiled, even where a model asks for it."""
    if not compiler_loaded():
        yield
        return
    with sys.modules["torch"].compiler.set_stance("force_eager"):
        yield
