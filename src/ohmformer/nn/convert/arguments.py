"""Checks of the arguments of `convert`, before anything is changed: each fault is one line with its remedy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from ohmformer.array.multiply import LEVELS
from ohmformer.array.spec import Level
from ohmformer.capture.inputs import as_plain_dict, at_home, batch_size
from ohmformer.capture.opaque_tensors import all_finite
from ohmformer.capture.sample_batch import as_sample
from ohmformer.capture.torch_private import own_dispatch, tree_leaves
from ohmformer.errors import BadInput, check_type, given, one_line, shown, suggest
from ohmformer.hardware.rules import OrderedRules, RuleBook, Rules
from ohmformer.hardware.spec import Accelerator, CrossbarEngine
from ohmformer.mitigation.spec import KVClip, WeightMitigation
from ohmformer.nn.convert.handle import check_seed
from ohmformer.nn.convert.spec import ConvertConfig
from ohmformer.nn.modules.class_swap import converted_part
from ohmformer.streams.backends import Kernels
from ohmformer.streams.compiling import check_kernels

WEIGHTS = "WeightMitigation(residual={}) or None, and choose one by calibrate(model, inputs, weights='auto')"
"""What to give for the mitigation of static weights."""

QUANTIZERS = (
    "torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized", "torchao", "optimum.quanto",
    "quanto", "bitsandbytes", "gptqmodel", "auto_gptq", "awq", "hqq", "aqlm", "compressed_tensors",
)  # fmt: skip
"""Packages whose layers hold quantized weights."""


def check_options(
    model: object, hardware: object, clip: object, rules: object, weights: object, level: object, kernels: object
) -> None:
    """Refuse arguments of a wrong type, a clip that the arrays of K or V cannot have, and kernels that are missing.

    Raises:
        BadInput: an argument is refused.
    """
    typed: list[tuple[str, object, type | tuple[type, ...], str]] = [
        ("model", model, nn.Module, "an nn.Module"),
        ("hardware", hardware, Accelerator, 'an accelerator, such as load("clipformer_tcad_2024")'),
        ("clip", clip, (KVClip, type(None)), "KVClip(alpha=..., beta=...) or None"),
        ("weights", weights, (WeightMitigation, type(None)), WEIGHTS),
        ("rules", rules, (Mapping, type(None)), "a mapping of name patterns"),
    ]
    for name, value, types, remedy in typed:
        check_type("convert", name, value, types, remedy)
    if not isinstance(level, str) or level not in LEVELS:
        raise BadInput(f"convert: level = {one_line(level)}: {suggest(shown(level), list(LEVELS))}")
    if not isinstance(kernels, str) or kernels not in get_args(Kernels):
        raise BadInput(f"convert: kernels = {one_line(kernels)}: {suggest(shown(kernels), list(get_args(Kernels)))}")
    check_kernels(cast("Kernels", kernels), "convert: kernels")
    assert isinstance(hardware, Accelerator)
    for engine in (hardware.attention.key, hardware.attention.value):
        if isinstance(clip, KVClip) and isinstance(engine, CrossbarEngine):
            clip.check(engine.array)


def checked_sample(model: nn.Module, sample: Any, rules: OrderedRules, files: Mapping[str, Path] | None = None) -> Any:
    """Return the sample batch as tensors on the device of the model, after checking both.

    Args:
        model: the digital model.
        sample: the sample batch.
        rules: the rules; layers that they keep digital may be quantized.
        files: name of each parameter that is in a file -> that file.

    Raises:
        BadInput: the sample is empty or has no axis of samples, or the model is converted, quantized, not initialized,
            on the meta device, or holds NaN or infinity.
    """
    sample = at_home(model, as_sample(_one_batch(sample)))
    converted = converted_part(model)
    if converted is not None:
        where = f"module '{converted}' of this model" if converted else "this model"
        raise BadInput(f"{where} is on crossbars already; convert the original, or what revert() returns")
    _check_tensors(sample)
    first = next((leaf for leaf in tree_leaves(sample) if isinstance(leaf, Tensor)), None)
    if first is not None and first.dim() < 2 and first.is_floating_point():
        raise BadInput(f"a sample of shape {tuple(first.shape)} has no axis of samples; add a batch dimension")
    _check_hooks(model)
    rule_book, skipped = RuleBook(rules), set[nn.Module]()
    for name, module in model.named_modules():
        reason = "" if module in skipped else quantization(module)
        if reason and rule_book.rule((name,)).digital:
            skipped.update(module.modules())  # modules inside hold its weights
        elif reason:
            raise BadInput(
                f"{name or 'the model itself'} ({type(module).__name__}) is quantized already ({reason}); convert "
                "the float model, since crossbars quantize its weights"
            )
    for name, parameter in model.named_parameters():
        _check_values(name, parameter, (files or {}).get(name))
    return sample


def _check_hooks(model: nn.Module) -> None:
    """Refuse a model whose weights accelerate moves in and out while it runs.

    Raises:
        BadInput: a module has a hook of accelerate.
    """
    name = next((name for name, module in model.named_modules() if hasattr(module, "_hf_hook")), None)
    if name is None:
        return
    places = sorted({str(place) for place in getattr(model, "hf_device_map", {}).values()})
    where = f" (device_map: {', '.join(places)})" if places else ""
    raise BadInput(
        f"{name or 'the model itself'} has hooks of accelerate, which move its weights while it runs{where}; load it "
        "without device_map (from_pretrained(FOLDER, dtype='auto') leaves weights in the file until they are used), "
        "convert it, and then give the converted model to accelerate.dispatch_model"
    )


def _check_tensors(sample: Any) -> None:
    """Refuse a sample whose tensors hold no values of a batch.

    Raises:
        BadInput: it has no tensor, or one is sparse, nested or without elements.
    """
    tensors = [leaf for leaf in tree_leaves(as_plain_dict(sample)) if isinstance(leaf, Tensor)]
    if not tensors and any(isinstance(leaf, str) for leaf in tree_leaves(as_plain_dict(sample))):
        raise BadInput("sample holds texts; give what the tokenizer makes of them, with return_tensors='pt'")
    for t in tensors:
        if t.is_nested or t.layout is not torch.strided:
            kind, remedy = ("nested", "pad it") if t.is_nested else ("sparse", "give sample.to_dense()")
            raise BadInput(f"sample holds a {kind} tensor; {remedy}, since crossbars multiply all values")
    if not tensors and (other := next(iter(tree_leaves(as_plain_dict(sample))), None)) is not None:
        raise BadInput(f"sample holds no tensor but {given(other)}; give tensors, such as what the preprocessing makes")
    if batch_size(sample) == 0:
        raise BadInput("sample is empty; give a batch of at least one input")
    empty = next((t for t in tensors if t.numel() == 0 and t.dim() > 1), None)
    if empty is not None and not any(t.numel() for t in tensors):
        raise BadInput(f"sample of shape {tuple(empty.shape)} holds no values; give inputs of at least one token")


def _one_batch(sample: Any) -> Any:
    """Return a sample, after checking that it is not a list of batches.

    Raises:
        BadInput: it is a list of mappings.
    """
    if isinstance(sample, list) and sample and all(isinstance(batch, Mapping) for batch in sample):
        raise BadInput(
            f"convert: sample is a list of {len(sample)} mappings; give one of them, such as sample=batches[0], and "
            "the others to calibrate_ranges(model, batches)"
        )
    return sample


def _check_values(name: str, parameter: nn.Parameter, file: Path | None) -> None:
    """Refuse a parameter without finite values; `file` holds it, or none does.

    Raises:
        BadInput: it is not initialized, on the meta device, or holds NaN or infinity.
    """
    if nn.parameter.is_lazy(parameter):
        raise BadInput(f"parameter {name} is not initialized; call the model once before it is converted")
    if parameter.is_meta:
        raise BadInput(
            f"parameter {name} is on the meta device and holds no values; load the model again with its weights, or, "
            "if all of it was built there, name the folder that holds them as safetensors: weights_from=FOLDER"
        )
    if own_dispatch(parameter):  # a rule keeps its layer digital, or it would have been refused
        return
    if not all_finite(parameter):
        if file is not None:
            raise BadInput(f"{file}: {name} holds NaN or infinity; download the file again, or train the model again")
        raise BadInput(f"parameter {name} holds NaN or infinity; load or train the model again")


def quantization(module: nn.Module) -> str:
    """Return the package or tensor type that quantizes the weights of a layer; "" for layers that are not quantized."""
    for cls in type(module).__mro__:
        if cls.__module__.startswith(QUANTIZERS):
            return str(cls.__module__.partition(".nn")[0])
    parameters = [p for p in module._parameters.values() if p is not None and not nn.parameter.is_lazy(p)]
    for t in (*parameters, *module._buffers.values()):
        if t is not None and not nn.parameter.is_lazy(t) and (t.is_quantized or own_dispatch(t)):
            return f"its weights are of type {type(t).__name__}"
    if any(p.dim() > 1 and not (p.is_floating_point() or p.is_complex()) for p in parameters):
        return "its weights are whole numbers"
    tiny = [p for p in parameters if p.is_floating_point() and p.element_size() == 1]
    return f"its weights are of type {str(tiny[0].dtype).removeprefix('torch.')}" if tiny else ""


def as_config(
    model: object,
    hardware: Accelerator | ConvertConfig,
    clip: KVClip | None,
    weights: WeightMitigation | None,
    level: Level | None,
    kernels: Kernels | None,
    rules: Rules | None,
    seed: int | None,
    chip: int | None,
    half_cells: bool | None = None,
) -> ConvertConfig:
    """Return the checked arguments of `convert` as one object; if that is the `hardware` argument, return it.

    Raises:
        BadInput: an argument has a wrong type or value, or is given beside a configuration.
    """
    check_type("convert", "half_cells", half_cells, (bool, type(None)), "True or False")
    if isinstance(hardware, ConvertConfig):
        settings = {"level": level, "kernels": kernels, "seed": seed, "chip": chip, "half_cells": half_cells}
        arguments = {"clip": clip, "weights": weights, "rules": rules, **settings}
        surplus = [name for name, value in arguments.items() if value is not None]
        if surplus:
            raise BadInput(
                f"convert: {' and '.join(surplus)} given beside a configuration, but a ConvertConfig holds clip, "
                "weights, level, kernels, rules, seed, chip and half_cells; change it there: "
                f"replace(config, {surplus[0]!r}, ...)"
            )
        stated = hardware.clip, None, hardware.weights, hardware.level, hardware.kernels
        check_options(model, hardware.hardware, *stated)
        return hardware
    level = "array" if level is None else level
    kernels = "torch" if kernels is None else kernels
    check_options(model, hardware, clip, rules, weights, level, kernels)
    return ConvertConfig.model_construct(
        hardware=hardware,
        clip=clip,
        weights=weights or WeightMitigation(),
        level=level,
        kernels=kernels,
        rules=RuleBook.read(rules).rules,
        seed=check_seed(0 if seed is None else seed),
        chip=check_seed(0 if chip is None else chip, "chip"),
        half_cells=bool(half_cells),
    )
