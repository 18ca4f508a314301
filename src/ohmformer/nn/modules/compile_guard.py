"""Keeps `torch.compile` out of the simulation of crossbars; it compiles the rest of a model around it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from ohmformer.capture.torch_private import compiler_loaded, compiling

REASON = "crossbars are simulated with values in every call; export the digital model, which revert() returns"
"""Message of PyTorch if it must compile or export all of a model."""

F = TypeVar("F", bound=Callable[..., Any])


def eager(function: F) -> F:
    """Decorator: the function is never compiled.

    The compiler is used only if something else has imported it, since its import takes seconds.
    """

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        # The guarded function is made outside of the compiler, which cannot trace that.
        if "guarded" not in vars(function) and compiler_loaded():
            vars(function)["guarded"] = sys.modules["torch"].compiler.disable(function, reason=REASON)
        return vars(function)["guarded"](*args, **kwargs) if compiling() else function(*args, **kwargs)

    return run  # type: ignore[return-value]
