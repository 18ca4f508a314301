"""Give up the weights of linear layers once cells hold them, so that a large model takes its memory once, not twice."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ohmformer.capture.inputs import call
from ohmformer.errors import BadInput, one_line
from ohmformer.nn.checks.comparing import named_rows
from ohmformer.nn.convert.handle import Handle
from ohmformer.nn.modules.intercept import Frame
from ohmformer.nn.modules.linear import CrossbarLinear


def release_weights(model: nn.Module, converted: nn.Module, handle: Handle) -> None:
    """Write the weights of linear layers, layer by layer, and put tensors without values (meta device) in their places.

    Weights that something else needs, too, are kept: tied embeddings, weights of layers that stay digital, matrices
    that are parts of a larger parameter. The sample is run once more, since a model may read weights by itself.

    Args:
        model: the original; it loses the same weights, since both models share them.
        converted: the converted model.
        handle: its handle.

    Raises:
        BadInput: the model itself reads the values of a weight.
    """
    kept = {id(parameter) for parameter in _read_by_others(converted)}
    holders = _holders(model, converted)
    layers: dict[int, list[CrossbarLinear]] = {}
    for layer in _layers(converted):
        if id(layer.weight) not in kept:
            layers.setdefault(id(layer.weight), []).append(layer)
    # The largest first: writing takes several times the memory of a matrix, while few cells hold anything yet.
    for key, tied in sorted(layers.items(), key=lambda item: -item[1][0].weight.numel()):
        weight = tied[0].weight
        for layer in tied:
            layer.ohmformer_weight.release(weight.detach())
        without_values = nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)
        for module, name in holders[key]:
            module._parameters[name] = without_values
    converted.register_load_state_dict_pre_hook(_refuse_to_load)
    try:
        with torch.no_grad(), named_rows(handle.sample, handle.axis):
            call(converted, handle.sample)
    except (RuntimeError, NotImplementedError) as error:
        raise BadInput(
            f"convert: keep_original=False: the model reads weights outside of its linear layers ({one_line(error)}); "
            "load it again, and leave keep_original out"
        ) from error


def check_kept(model: nn.Module, verb: str) -> None:
    """Refuse a model whose weights were given up.

    Raises:
        BadInput: they were; `verb` names the public function that needs them.
    """
    for layer in _layers(model):
        if layer.ohmformer_weight.released:
            raise BadInput(f"{verb}: {layer.ohmformer_weight.given_up}")


def _refuse_to_load(model: nn.Module, *_: object) -> None:
    """Hook of a model that loads: PyTorch would leave parameters without values as they are, and cells too."""
    check_kept(model, "load_state_dict")


def _layers(model: nn.Module) -> Iterator[CrossbarLinear]:
    """The linear layers of a model that are on crossbars."""
    return (module for module in model.modules() if isinstance(module, CrossbarLinear))


def _holders(*models: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Identity of each parameter -> the modules that have it, each with the name that it has there."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in (module for model in models for module in model.modules()):
        for name, parameter in module._parameters.items():
            found.setdefault(id(parameter), []).append((module, name))
    return found


def _read_by_others(converted: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that something beside the linear layers on crossbars reads."""
    for module in converted.modules():
        frame = vars(module).get("ohmformer_frame")
        for weights in frame.weights if isinstance(frame, Frame) else ():
            if isinstance(parameter := getattr(weights.owner, weights.parameter), nn.Parameter):
                yield parameter
        for name, parameter in module._parameters.items():
            if parameter is not None and not (isinstance(module, CrossbarLinear) and name == "weight"):
                yield parameter
