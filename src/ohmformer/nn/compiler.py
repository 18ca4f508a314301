"""Keeping the simulation out of `torch.compile`: the model around it is compiled, what crossbars do is run as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor


def run_as_it_is(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A method that compilers leave alone; PyTorch's compiler is not imported for it, which would take seconds."""
    left_alone: list[Callable[..., Tensor]] = []

    @wraps(method)
    def run(*args: Any, **kwargs: Any) -> Tensor:
        if not left_alone:
            compiler = sys.modules.get("torch._dynamo")
            if compiler is None or not hasattr(compiler, "disable"):
                return method(*args, **kwargs)
            left_alone.append(compiler.disable(method))
        return left_alone[0](*args, **kwargs)

    return run
