"""Load a model by its source, and compute a digest of its weights and code."""

from __future__ import annotations

import hashlib
import inspect
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from ohmformer.capture.opaque_tensors import all_finite
from ohmformer.capture.torch_private import own_dispatch, tree_leaves
from ohmformer.errors import BadInput, shown
from ohmformer.models.bundled_vit import VisionTransformer
from ohmformer.models.sources import bundled_file, first_line, split
from ohmformer.models.spec import ModelChoice
from ohmformer.models.user_code import from_python
from ohmformer.schema import validate

READERS = {
    "timm": ("ohmformer.models.timm", "load_timm"),
    "hf": ("ohmformer.models.huggingface", "load_hf"),
}
"""Prefix of a source -> module and function that load it, imported on use, since they need optional packages."""


def load_model(source: str, **options: Any) -> nn.Module:
    """Load the model of a source, in evaluation mode and float32.

    Args:
        source: 'bundled:fashion-vit', 'timm:NAME', 'timm:local-dir:FOLDER', 'hf:NAME-OR-FOLDER', 'hf:FOLDER/FILE.gguf',
            'hf:package:NAME/PATH' for a folder or file in an installed package, or 'python:module:function' for a
            function that returns an `nn.Module`.
        options: other fields of `ohmformer.models.spec.ModelChoice`: weights ('pretrained' or 'random'), seed, head.

    Raises:
        BadInput: the source does not exist, gives no model or no weights, or the weights are not finite.
    """
    return make_model(validate(ModelChoice, {"source": source, **options}, where="", top="model", in_file=False))


def make_model(choice: ModelChoice, head: str = "auto") -> nn.Module:
    """Load the model of a checked choice, in evaluation mode.

    Args:
        choice: the choice of the model.
        head: the head that the task needs, for a choice with head `task`: a key of
            `ohmformer.models.huggingface.AUTO`, or `auto` for the head that the model was trained with.

    Raises:
        BadInput: as for `load_model`.
    """
    prefix, rest = split("model", choice.source)
    head = head if choice.head == "task" else choice.head
    if prefix in ("timm", "hf"):
        module, function = READERS[prefix]
        model: nn.Module = getattr(import_module(module), function)(choice, rest, head)
    else:
        for name in ("weights", "head"):
            if getattr(choice, name) != ModelChoice.model_fields[name].default:
                raise BadInput(
                    f"model.{name} = {shown(getattr(choice, name))}: only for timm: and hf: sources; leave it out"
                )
        if prefix == "python":
            model = from_python("model", choice.source, nn.Module)
        else:
            model = _read_bundled(bundled_file("model", choice.source))
    for name, tensor in model.state_dict().items():
        readable = isinstance(tensor, torch.Tensor) and not tensor.is_meta and not own_dispatch(tensor)
        if readable and tensor.is_floating_point() and not all_finite(tensor):
            raise BadInput(f"{choice.where}: {name} holds NaN or infinity; train or load the model again")
    return model.eval()


def _read_bundled(file: Path) -> nn.Module:
    """Read a bundled file: weights, with the arguments of `VisionTransformer` as JSON in the metadata."""
    try:
        with safe_open(file, framework="pt") as content:
            architecture = json.loads((content.metadata() or {})["architecture"])
            weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        model = VisionTransformer(**architecture)
        model.load_state_dict(weights)
    except Exception as error:  # safetensors, JSON and torch raise many kinds of errors
        raise BadInput(f"{file}: is not a bundled model ({first_line(error)}); install the package again") from error
    return model


def model_digest(model: nn.Module) -> str:
    """Compute the SHA-256 of a model: weights (name, type, shape, bytes), layers with settings, code of its classes.

    The code of torch's own classes is left out; results record the version of torch instead.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        for leaf in tree_leaves(value):  # packed weights of quantized layers and extra states are no single tensors
            if isinstance(leaf, torch.Tensor):
                digest.update(f"{name} {leaf.dtype} {tuple(leaf.shape)}\n".encode())
                digest.update(tensor_bytes(leaf))
            else:
                digest.update(f"{name} {leaf!r}\n".encode())
    digest.update(repr(model).encode())
    for cls in sorted({type(module) for module in model.modules()}, key=lambda cls: (cls.__module__, cls.__qualname__)):
        if cls.__module__.split(".")[0] != "torch":
            digest.update(_code(cls).encode())
    return digest.hexdigest()


def _code(cls: type) -> str:
    """Return the source of a class, or its name if there is no source."""
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        return f"{cls.__module__}.{cls.__qualname__}"


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """Return the values of a tensor of any type as bytes; for a quantized one also its whole numbers.

    Raises:
        BadInput: its class hides them.
    """
    if tensor.is_quantized:
        return tensor_bytes(tensor.int_repr()) + tensor_bytes(tensor.dequantize())
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    try:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        data: bytes = flat.view(torch.uint8).numpy().tobytes()
    except (RuntimeError, TypeError) as error:  # tensors of classes with storage of their own
        kind = type(tensor).__name__
        raise BadInput(f"a tensor of type {kind} cannot be read ({first_line(error)}); use plain tensors") from error
    return data
