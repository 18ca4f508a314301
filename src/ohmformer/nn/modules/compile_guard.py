"""What `torch.compile` leaves as it is: the simulation of crossbars, around which it compiles the rest of a model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from ohmformer.capture.torch_private import compiling

REASON = "crossbars are simulated with values in every call; export the digital model, which revert() returns"
"""What PyTorch says where it is told to compile or to export all of a model."""

F = TypeVar("F", bound=Callable[..., Any])


def eager(function: F) -> F:
    """The function, never compiled. The compiler is not imported for it, which would take seconds."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not compiling() or not hasattr(sys.modules.get("torch._dynamo"), "disable"):  # not imported, or not yet
            return function(*args, **kwargs)
        disabled = vars(function).get("disabled")
        if disabled is None:
            disabled = vars(function)["disabled"] = sys.modules["torch"].compiler.disable(function, reason=REASON)
        return disabled(*args, **kwargs)

    return run  # type: ignore[return-value]
