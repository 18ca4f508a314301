"""Contexts in which a model runs without side effects, and without paths of PyTorch that bypass its layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ohmformer.capture.opaque_tensors import opaque
from ohmformer.capture.torch_private import compiler_loaded


@contextmanager
def unchanged_buffers(model: nn.Module) -> Iterator[None]:
    """Context after which the buffers of a model hold their former values, whatever its calls wrote into them."""
    plain = [buffer for buffer in model.buffers() if not buffer.is_meta and not opaque(buffer)]
    before = [(buffer, buffer.detach().clone()) for buffer in plain]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, values in before:
                if buffer.shape != values.shape:  # observers of quantization size their buffers in the first call
                    buffer.resize_(values.shape)
                if not torch.equal(buffer, values):
                    buffer.copy_(values)


@contextmanager
def unchanged_structure(model: nn.Module) -> Iterator[None]:
    """Context after which modules have their former submodules, attributes and configurations.

    Some models change themselves in a call: BigBird exchanges its attention when it meets a short text.
    """
    parts = [(vars(module), module._modules) for module in model.modules()]
    configs = {id(c): vars(c) for own, _ in parts if hasattr(c := own.get("config"), "__dict__")}
    changing = [*(own for own, _ in parts), *(children for _, children in parts), *configs.values()]
    before = [(attributes, dict(attributes)) for attributes in changing]
    try:
        yield
    finally:
        for attributes, values in before:
            attributes.clear()
            attributes.update(values)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Context in which all modules of a model are in evaluation mode."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Context without PyTorch's fused encoder layer, which makes nested tensors and sets outputs at padding to zero."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Context in which nothing is compiled, even if a model calls `torch.compile`."""
    if not compiler_loaded():
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
