"""Checkpoints: a converted model in one safetensors file, with weights under their own names and settings as JSON.

Nothing is pickled. The architecture is not stored, so restoring takes a digital model of the same architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ohmformer.array.residual.feedback import ErrorFeedback
from ohmformer.capture.opaque_tensors import opaque
from ohmformer.errors import BadInput, check_type
from ohmformer.hardware.ages import Ages
from ohmformer.hardware.rules import Rule
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import Conditioning, KVClip, WeightMitigation
from ohmformer.nn.convert.calibrate_ranges import calibrate_ranges
from ohmformer.nn.convert.convert import convert
from ohmformer.nn.convert.handle import Handle, crossbars
from ohmformer.nn.convert.release import check_kept
from ohmformer.nn.convert.sharing import Model
from ohmformer.nn.convert.state_dict_ranges import PREFIX
from ohmformer.nn.convert.weight_mitigation import assignments, mitigate, weight_operands
from ohmformer.nn.modules.class_swap import converted_part
from ohmformer.nn.operands.clipping import plain_clip
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.kv_transform import Conditioner
from ohmformer.nn.operands.ranges import FITTED, ranges, set_ranges, unfit
from ohmformer.nn.saving.checksummed_file import (
    apart,
    checksummed_metadata,
    digest,
    infinities_as_text,
    read_checksummed,
    replace_when_done,
    text_as_infinities,
)
from ohmformer.nn.saving.sample_json import sample_as_json, sample_from_json, tensor_names
from ohmformer.schema import validate
from ohmformer.streams.backends import Kernels
from ohmformer.streams.compiling import check_kernels

SCHEMA = 2
"""Version of the format."""
_TYPES: dict[str, type | tuple[type, ...]] = {
    **{"hardware": dict, "rules": list, "clip": (dict, type(None)), "level": str, "seed": int, "chip": int},
    **{"rounded": bool, "calibration": list, "operands": list, "tied": dict, "sample": (dict, type(None))},
    **{"remedies": dict, "sha256": str},
}
"""Entry of the metadata -> its type."""

_OWN = "ohmformer/"
"""Prefix of the names of tensors that are not weights."""


def save(model: nn.Module, file: str | Path) -> None:
    """Write a converted model to a file: weights, hardware, rules, clip, level, kernels, seed, chip, ages, ranges.

    The file also holds the inputs of the sample batch, since later calibrations need them; mind their privacy.

    Args:
        model: a converted model.
        file: path of the file; an existing file is replaced.

    Raises:
        BadInput: the model was not converted, its weights were given up (`keep_original=False`), another thread changes
            its settings, or the file cannot be written.
    """
    handle = crossbars(model)
    check_kept(model, "save")
    check_type("save", "file", file, (str, PathLike), "the path of the file to write")
    handle.state.users.check()
    weights, tied = _weights(model)
    tensors = dict(weights)
    for operand in handle.operands:
        tensors |= {f"{_OWN}{operand.name}/{name}": t for name, t in ranges(operand).items()}
    metadata = {
        "schema": SCHEMA,
        "hardware": handle.hardware.canonical(),
        "rules": [[pattern, rule.canonical()] for pattern, rule in handle.rules],
        "clip": None if handle.state.clip is None else handle.state.clip.canonical(),
        "weights": handle.weights.canonical(),
        "ages": handle.ages.plain() if isinstance(handle.ages, Ages) else handle.ages,
        **{name: getattr(handle.state, name) for name in ("level", "kernels", "seed", "chip", "rounded", "half_cells")},
        "calibration": list(handle.calibration),
        "operands": [operand.name for operand in handle.operands],
        "tied": tied,
        "remedies": {**_remedies_of_kv(handle), **_remedies_of_weights(handle)},
        "sample": sample_as_json(handle.sample, tensors, f"{_OWN}sample/"),
    }
    stored = apart({name: t.detach().contiguous().cpu() for name, t in tensors.items()})
    try:
        with replace_when_done(file) as new_file:
            save_file(stored, new_file, checksummed_metadata(infinities_as_text(metadata), stored))
    except (OSError, SafetensorError, ValueError) as error:
        raise BadInput(f"{file}: cannot be written ({error}); choose another place") from error


def restore(
    model: Model,
    file: str | Path,
    *,
    hardware: Accelerator | None = None,
    sample: Any = None,
    ages: Ages | float | None = None,
    kernels: Kernels | None = None,
) -> Model:
    """Read a converted model from a file.

    Args:
        model: a digital model of the same architecture; its weights are overwritten by those of the file.
        file: a file that `save` wrote.
        hardware: other hardware than that in the file; None takes that. For other hardware ranges are calibrated anew,
            and clips, conditionings and mitigations that `calibrate`, `set_kv` or `set_weights` set are dropped, and so
            are ages.
        sample: a batch that replaces that in the file; None takes that.
        ages: ages that replace those in the file, as in `convert`; None takes those.
        kernels: kernels that replace those in the file, as in `convert`; None takes those.

    Returns:
        The converted model, which shares the parameters of `model`.

    Raises:
        BadInput: `save` did not write the file, it is damaged, or the model has another architecture.
    """
    check_type("restore", "model", model, nn.Module, "a digital model; the model comes first: restore(model, file)")
    check_type("restore", "file", file, (str, PathLike), "the path of a file that save() wrote")
    check_type("restore", "hardware", hardware, (Accelerator, type(None)), "an accelerator, from of.load, or None")
    metadata, tensors = _read(file)
    kernels = _kernels(metadata, file) if kernels is None else kernels
    _load_weights(model, tensors, metadata["tied"], file)
    sample = sample_from_json(metadata["sample"], tensors) if sample is None else sample
    if sample is None:
        raise BadInput(f"{file}: holds no sample batch; give one with sample=")
    where = f"{file}: ohmformer"
    stored = validate(Accelerator, text_as_infinities(metadata["hardware"]), where=where, in_file=False)
    rules = {
        pattern: validate(Rule, _tuples(text_as_infinities(rule)), where=where, in_file=False)
        for pattern, rule in metadata["rules"]
    }
    clip = None if metadata["clip"] is None else validate(KVClip, metadata["clip"], where=where, in_file=False)
    weights = validate(WeightMitigation, metadata.get("weights", {}), where=where, in_file=False)
    settings: dict[str, Any] = {name: metadata[name] for name in ("level", "seed", "chip")}
    if ages is None and hardware is None and metadata.get("ages") is not None:
        stored_ages = metadata["ages"]
        ages = stored_ages if isinstance(stored_ages, float) else Ages.read(stored_ages)
    settings |= {"kernels": kernels, "half_cells": bool(metadata.get("half_cells"))}
    options: dict[str, Any] = {"clip": clip, "weights": weights, "rules": rules, "ages": ages, **settings}
    converted = convert(model, hardware or stored, sample=sample, **options)
    handle = crossbars(converted)
    if [operand.name for operand in handle.operands] != metadata["operands"] and hardware is None:
        raise BadInput(f"{file}: holds a model with other products than {type(model).__name__}; give the same model")
    handle.state.rounded = metadata["rounded"]
    if hardware is None:
        handle.calibration = (metadata["calibration"][0], metadata["calibration"][1])
        _restore_remedies(converted, metadata["remedies"], tensors, file)
        _restore_ranges(handle, tensors, file)
    return converted


def _kernels(metadata: Mapping[str, Any], file: str | Path) -> Any:
    """Return the kernels of a file, of which older ones name none.

    Raises:
        BadInput: this machine does not have them.
    """
    found = metadata.get("kernels", "torch")
    check_kernels(found, f"{file}: kernels (restore takes others with kernels=)")
    return found


def _weights(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return name -> parameter or buffer, each tensor once; and further name -> first name of tied weights.

    Raises:
        BadInput: the model holds a tensor that is not a plain one.
    """
    weights: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first_names: dict[tuple[Any, ...], str] = {}
    for name, t in model.state_dict().items():
        if name.startswith(PREFIX):  # stored with the operands
            continue
        if not isinstance(t, Tensor):
            raise BadInput(
                f"{name} is of type {type(t).__name__}, which the file cannot hold; keep it out of the state"
            )
        if opaque(t):
            raise BadInput(f"{name} is {opaque(t)}, which the file cannot hold; keep plain tensors in the model")
        memory = (t.data_ptr(), tuple(t.shape), t.stride(), t.dtype)
        if t.numel() and memory in first_names:
            tied[name] = first_names[memory]
        else:
            weights[name], first_names[memory] = t, name
    return weights, tied


def _remedies_of_kv(handle: Handle) -> dict[str, dict[str, Any]]:
    """Return K or V -> the conditioning and clip that were set for it alone, if any."""
    remedies = {op.name: _remedy(op) for op in handle.operands if isinstance(op, KVOperand)}
    return {name: remedy for name, remedy in remedies.items() if remedy}


def _remedies_of_weights(handle: Handle) -> dict[str, dict[str, Any]]:
    """Return static weights -> the mitigation that was set for them alone, if it is not that of the conversion."""
    usual = assignments(handle, {})
    return {
        operand.name: {"weights": operand.mitigation.canonical()}
        for operand in weight_operands(handle)
        if operand.mitigation != usual[operand.name].mitigation
    }


def _remedy(operand: KVOperand) -> dict[str, Any]:
    """Return the conditioning and clip that were set for one operand alone, as plain JSON values."""
    remedy: dict[str, Any] = {}
    if operand.conditioner is not None:
        fitted = [name for name in FITTED if getattr(operand.conditioner, name) is not None]
        remedy = {"kv": operand.conditioner.spec.canonical(), "fitted": fitted}
    if operand.clip != operand.plain_clip:
        remedy["clip"] = plain_clip(operand.clip)
    return remedy


def _restore_remedies(
    converted: nn.Module, remedies: Mapping[str, Any], tensors: Mapping[str, Tensor], file: str | Path
) -> None:
    """Set the conditionings and clips of single operands as the file holds them.

    Raises:
        BadInput: the file is damaged.
    """
    operands = {op.name: op for op in crossbars(converted).operands if isinstance(op, KVOperand)}
    _restore_weights(crossbars(converted), remedies, tensors, file)
    for name, remedy in remedies.items():
        if "weights" in remedy:
            continue
        try:
            operand = operands[name]
            if "kv" in remedy:
                spec = validate(Conditioning, remedy["kv"], where=f"{file}: ohmformer", in_file=False)
                fitted = {part: tensors[f"{_OWN}{name}/{part}"] for part in remedy["fitted"]}
                conditioner = Conditioner(spec, operand.axis, **fitted)
                if not conditioner.sound:
                    raise ValueError("mean, basis and inverse do not belong together")
                operand.condition(conditioner)
            if "clip" in remedy:
                operand.clip = Rule.model_validate({"clip": remedy["clip"]}).clip
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{file}: is damaged (clip or conditioning of {name}); save the model again") from error
    if remedies:
        calibrate_ranges(converted)


def _restore_weights(
    handle: Handle, remedies: Mapping[str, Any], tensors: Mapping[str, Tensor], file: str | Path
) -> None:
    """Set the mitigations of single static weights as the file holds them.

    Raises:
        BadInput: the file is damaged.
    """
    where = f"{file}: ohmformer"
    stored = {name: remedy["weights"] for name, remedy in remedies.items() if "weights" in remedy}
    specs = {name: validate(WeightMitigation, table, where=where, in_file=False) for name, table in stored.items()}
    scaling = {op.name: op.scaling for op in weight_operands(handle) if op.scaling is not None}
    feedback = {op.name: op.feedback for op in weight_operands(handle) if op.feedback is not None}
    for operand in weight_operands(handle):
        if operand.name not in specs:
            continue
        spec = specs[operand.name]
        scaling.pop(operand.name, None)
        feedback.pop(operand.name, None)
        if spec.scaling is not None:
            scaling[operand.name] = _tensor_of(operand.name, "scaling", tensors, file)
        if spec.residual is not None and spec.residual.feedback:
            parts = (_tensor_of(operand.name, f"feedback_{part}", tensors, file) for part in ("order", "shares"))
            feedback[operand.name] = ErrorFeedback(*parts)
    if unknown := specs.keys() - {operand.name for operand in weight_operands(handle)}:
        raise BadInput(f"{file}: is damaged (mitigation of {min(unknown)}); save the model again")
    if specs:
        mitigate(handle, assignments(handle, specs), scaling, feedback)


def _tensor_of(operand: str, name: str, tensors: Mapping[str, Tensor], file: str | Path) -> Tensor:
    """Return a tensor of an operand; a file that does not hold it is refused."""
    tensor = tensors.get(f"{_OWN}{operand}/{name}")
    if tensor is None:
        raise BadInput(f"{file}: is damaged ({name} of {operand}); save the model again")
    return tensor


def _restore_ranges(handle: Handle, tensors: Mapping[str, Tensor], file: str | Path) -> None:
    """Set the calibrated ranges as the file holds them.

    Raises:
        BadInput: the file is damaged.
    """
    for operand in handle.operands:
        before = ranges(operand)
        names = {name: f"{_OWN}{operand.name}/{name}" for name in before}
        stored = {name: tensors[key] for name, key in names.items() if key in tensors}
        misfit = unfit(operand, stored)
        if misfit:
            raise BadInput(f"{file}: is damaged ({misfit} of {operand.name}); save the model again")
        set_ranges(operand, stored)
        if any(not stored[name].equal(before[name].to(stored[name])) for name in stored):
            handle.largest_inputs.clear()  # ranges were calibrated on more than the sample


def _read(file: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the metadata and the tensors of a file.

    Raises:
        BadInput: `save` did not write the file, or it is damaged.
    """
    metadata, tensors = read_checksummed(file)
    if metadata.get("schema") != SCHEMA:
        raise BadInput(
            f"{file}: has schema {metadata.get('schema')!r}, this version reads {SCHEMA}; save the model again"
        )
    for name, kind in _TYPES.items():
        if name not in metadata or not isinstance(metadata[name], kind) or not _is_sound(name, metadata[name], tensors):
            raise BadInput(f"{file}: is damaged ({name} in its metadata); save the model again")
    if metadata["sha256"] != digest(metadata, tensors):
        raise BadInput(f"{file}: is damaged (its contents do not have the SHA-256 that it names); save the model again")
    return metadata, tensors


def _is_sound(name: str, value: Any, tensors: Mapping[str, Tensor]) -> bool:
    """True if an entry of the metadata has the form that `save` writes, and the tensors that it names exist."""
    match name:
        case "rules":
            pairs = all(isinstance(rule, list) and len(rule) == 2 for rule in value)
            return pairs and all(isinstance(pattern, str) and isinstance(rule, dict) for pattern, rule in value)
        case "calibration":
            return len(value) == 2 and all(type(number) is int for number in value)
        case "seed" | "chip":
            return type(value) is int
        case "tied":
            return all(isinstance(first, str) and first in tensors for first in value.values())
        case "sample":
            return tensor_names(value) <= set(tensors)
    return True


def _load_weights(model: nn.Module, tensors: Mapping[str, Tensor], tied: Mapping[str, str], file: str | Path) -> None:
    """Load the weights of a file into a digital model.

    Raises:
        BadInput: the model is converted, or its names, shapes or types of weights are not those of the file.
    """
    if converted_part(model) is not None:
        raise BadInput("restore takes a digital model; give the original, or what revert() returns")
    empty = next((name for name, t in [*model.named_parameters(), *model.named_buffers()] if t.is_meta), None)
    if empty is not None:
        raise BadInput(
            f"restore: {empty} of the model is on the meta device and can take no values; build the model in memory, "
            "without accelerate.init_empty_weights() and torch.device('meta')"
        )
    weights = {name: t for name, t in tensors.items() if not name.startswith(_OWN)}
    weights |= {name: weights[first] for name, first in tied.items()}
    current = model.state_dict()
    for name in [*weights, *current]:
        if name not in weights or name not in current or current[name].shape != weights[name].shape:
            raise BadInput(f"{file}: does not fit {type(model).__name__}, the first difference is {name}")
        if current[name].dtype != weights[name].dtype:
            types = f"{weights[name].dtype} in the file and {current[name].dtype} in the model"
            raise BadInput(f"{file}: does not fit {type(model).__name__}: {name} is {types}; convert the model's type")
    model.load_state_dict(weights)


def _tuples(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return a rule from JSON with tuples in place of lists, as specifications have them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in rule.items()}
