"""Loading models by name, and a digest of all that makes a model compute what it computes."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ohmformer.errors import BadInput
from ohmformer.tasks.sources import call, resolve
from ohmformer.tasks.vit import VisionTransformer


def load_model(source: str) -> nn.Module:
    """The model of a source, in evaluation mode.

    Args:
        source: 'bundled:fashion-vit', or 'python:module:function' for a function that returns an `nn.Module`.

    Raises:
        BadInput: no such source, no model, or weights that are not finite.
    """
    found = resolve("model", source)
    model = _read(found) if isinstance(found, Path) else call("model", source, found, nn.Module)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise BadInput(f"model.source = {source!r}: {name} holds NaN or infinity; train or load the model again")
    return model.eval()


def _read(file: Path) -> nn.Module:
    """A bundled file: weights, with the arguments of `VisionTransformer` as JSON in the metadata."""
    try:
        with safe_open(file, framework="pt") as content:
            architecture = json.loads((content.metadata() or {})["architecture"])
            weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        model = VisionTransformer(**architecture)
        model.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"{file}: is no bundled model ({error}); install the package again") from error
    return model


def model_digest(model: nn.Module) -> str:
    """SHA-256 over the weights (name, type, shape, bytes), the layers with their settings, and the code of its classes.

    Classes of torch are left out: the version of torch stands for them.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    digest.update(repr(model).encode())
    for cls in sorted({type(module) for module in model.modules()}, key=lambda cls: (cls.__module__, cls.__qualname__)):
        if cls.__module__.split(".")[0] != "torch":
            digest.update(_code(cls).encode())
    return digest.hexdigest()


def _code(cls: type) -> str:
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        return f"{cls.__module__}.{cls.__qualname__}"


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The values of a tensor of any type, as bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    data: bytes = flat.view(torch.uint8).numpy().tobytes()
    return data
