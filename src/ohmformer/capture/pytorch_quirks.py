"""Run a model so that nothing of it changes, and so that its layers really run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ohmformer.capture.opaque_tensors import opaque


@contextmanager
def unchanged_buffers(model: nn.Module) -> Iterator[None]:
    """What models write into their buffers when they are run inside, such as counters, is taken back."""
    plain = [buffer for buffer in model.buffers() if not buffer.is_meta and not opaque(buffer)]
    before = [(buffer, buffer.detach().clone()) for buffer in plain]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, values in before:
                if not torch.equal(buffer, values):
                    buffer.copy_(values)


@contextmanager
def without_fast_path() -> Iterator[None]:
    """PyTorch's fused encoder makes nested tensors and zeros at padding: compare with what its layers do."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


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
    with torch.compiler.set_stance("force_eager"):
        yield
