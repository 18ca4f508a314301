"""Give up the weights of linear layers once cells hold them, so that a large model takes its memory once, not twice."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from ohmformer.capture.inputs import call
from ohmformer.errors import BadInput, one_line
from ohmformer.nn.checks.comparing import named_rows
from ohmformer.nn.convert.handle import Handle
from ohmformer.nn.modules.intercept import Frame
from ohmformer.nn.modules.linear import CrossbarLinear
from ohmformer.nn.shared.given_up import needs_weights, placeholder


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
    try:
        _give_up(model, converted)
    finally:  # after an interrupt from the keyboard, too
        for module in (*_incomplete(converted), *_incomplete(model)):
            module.register_state_dict_pre_hook(_refuse_to_save)
            module.register_load_state_dict_pre_hook(_refuse_to_load)
            if hasattr(type(module), "save_pretrained"):
                vars(module)["save_pretrained"] = partial(_save_pretrained, module)
        for module in _incomplete(model):
            module.register_forward_pre_hook(_refuse_to_run)
    try:
        with torch.no_grad(), named_rows(handle.sample, handle.axis):
            call(converted, handle.sample)
    except (RuntimeError, NotImplementedError) as error:
        raise BadInput(
            f"convert: keep_original=False: the model reads weights outside of its linear layers ({one_line(error)}); "
            "load it again, and leave keep_original out"
        ) from error


def _give_up(model: nn.Module, converted: nn.Module) -> None:
    """Write weights that nothing else needs, and put tensors without values in their places in both models."""
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
        without_values = placeholder(weight)
        for module, name in holders[key]:
            module._parameters[name] = without_values


def check_kept(model: nn.Module, verb: str) -> None:
    """Refuse a model whose weights were given up.

    Raises:
        BadInput: they were; `verb` names the public function that needs them.
    """
    for layer in _layers(model):
        if layer.ohmformer_weight.released:
            raise BadInput(f"{verb}: {needs_weights(layer.ohmformer_weight.name)}")


def _incomplete(model: nn.Module) -> list[nn.Module]:
    """The modules of a model that hold weights which were given up, themselves or further inside."""
    return [module for module in model.modules() if _given_up(module)]


def _given_up(module: nn.Module) -> str:
    """The name of the first parameter of a module without values; "" if all have values."""
    return next((name for name, parameter in module.named_parameters() if parameter.is_meta), "")


def _refuse_to_save(module: nn.Module, *_: object) -> None:
    """Hook of a module whose state dictionary is asked for: files would hold names and shapes without values."""
    if name := _given_up(module):
        raise BadInput(f"state_dict: {needs_weights(name)}")


def _save_pretrained(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """`save_pretrained` of a module, which is refused before it writes any file, unless it is given a state dictionary.

    That is the third argument of the method of Hugging Face.
    """
    if kwargs.get("state_dict", args[2] if len(args) > 2 else None) is None:
        _refuse_to_save(module)
    return type(module).save_pretrained(module, *args, **kwargs)  # type: ignore[attr-defined]


def _refuse_to_load(module: nn.Module, *_: object) -> None:
    """Hook of a module that loads: PyTorch would leave parameters without values as they are, and cells too."""
    if name := _given_up(module):
        raise BadInput(f"load_state_dict: {needs_weights(name)}")


def _refuse_to_run(module: nn.Module, _: object) -> None:
    """Hook of an original that is called: PyTorch would compute with memory that nothing was written to."""
    if name := _given_up(module):
        raise BadInput(
            f"{type(module).__name__}: its weights were given up (keep_original=False), {name} among them, and cells "
            "of the converted model hold all that is left of them; call that model, or load this one again"
        )


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
