"""Converted models in one safetensors file: weights under their own names, and as JSON all that makes them converted.

Nothing is pickled. The architecture is not stored: restoring takes a model of the same one, such as the library that it
is from makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ohmformer.capture.opaque_tensors import opaque
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import Rule
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import Conditioning, KVClip, WeightMitigation
from ohmformer.nn.convert.calibrate_ranges import calibrate_ranges
from ohmformer.nn.convert.convert import convert
from ohmformer.nn.convert.handle import Crossbars, crossbars
from ohmformer.nn.convert.sharing import Model
from ohmformer.nn.convert.state_dict_ranges import PREFIX
from ohmformer.nn.modules.class_swap import converted_part
from ohmformer.nn.operands.clipping import plain_clip
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.kv_transform import Conditioner
from ohmformer.nn.operands.ranges import FITTED, ranges, set_ranges, unfit
from ohmformer.nn.saving.signed_file import digest, finite, read_signed, replacing, signed, unbounded
from ohmformer.schema import validate

SCHEMA = 2
_KINDS: dict[str, type | tuple[type, ...]] = {
    **{"hardware": dict, "rules": list, "clip": (dict, type(None)), "level": str, "seed": int, "chip": int},
    **{"rounded": bool, "calibration": list, "operands": list, "tied": dict, "sample": (dict, type(None))},
    **{"remedies": dict, "sha256": str},
}
"""What the metadata of a file hold, and of which type."""

_OWN = "ohmformer/"
"""How the names of tensors begin that are no weights."""


def save(model: nn.Module, file: str | Path) -> None:
    """Write a converted model: weights, hardware, rules, clip, level, seed, chip, calibrated ranges and the sample.

    The sample is stored for what is calibrated later; it is what the model was converted with, so mind its privacy.

    Raises:
        BadInput: the model was not converted, another thread changes its settings, or the file cannot be written.
    """
    found = crossbars(model)
    found.state.users.check()
    weights, tied = _weights(model)
    tensors = dict(weights)
    for operand in found.operands:
        tensors |= {f"{_OWN}{operand.name}/{name}": t for name, t in ranges(operand).items()}
    about = {
        "schema": SCHEMA,
        "hardware": found.hardware.canonical(),
        "rules": [[pattern, rule.canonical()] for pattern, rule in found.rules],
        "clip": None if found.state.clip is None else found.state.clip.canonical(),
        "weights": found.weights.canonical(),
        **{name: getattr(found.state, name) for name in ("level", "seed", "chip", "rounded")},
        "calibration": list(found.calibration),
        "operands": [operand.name for operand in found.operands],
        "tied": tied,
        "remedies": {op.name: _remedy(op) for op in found.operands if isinstance(op, KVOperand) and _remedy(op)},
        "sample": _described(found.sample, tensors),
    }
    plain = {name: t.detach().contiguous().cpu() for name, t in tensors.items()}
    try:
        with replacing(file) as written:
            save_file(plain, written, signed(finite(about), plain))
    except (OSError, SafetensorError, ValueError) as error:
        raise BadInput(f"{file}: cannot be written ({error}); choose another place") from error


def restore(model: Model, file: str | Path, *, hardware: Accelerator | None = None, sample: Any = None) -> Model:
    """The converted model of a file, around the weights of the file.

    Args:
        model: a digital model of the same architecture; its weights are overwritten by those of the file.
        file: what `save` wrote.
        hardware: other hardware than the file's, for which ranges are calibrated anew; what `calibrate` or `set_kv` did
            for K and V was for the other one, and is left out.
        sample: a batch, where the file holds none, or in place of the file's.

    Raises:
        BadInput: the file is none of `save`, or the model is another one.
    """
    if not isinstance(model, nn.Module):
        raise BadInput(f"model is of type {type(model).__name__}; the model comes first: restore(model, file)")
    about, tensors = _read(file)
    _load_weights(model, tensors, about["tied"], file)
    sample = _rebuilt(about["sample"], tensors) if sample is None else sample
    if sample is None:
        raise BadInput(f"{file}: holds no sample batch; give one with sample=")
    where = f"{file}: ohmformer"
    stored = validate(Accelerator, unbounded(about["hardware"]), where=where, in_file=False)
    rules = {p: validate(Rule, _tuples(unbounded(rule)), where=where, in_file=False) for p, rule in about["rules"]}
    clip = None if about["clip"] is None else validate(KVClip, about["clip"], where=where, in_file=False)
    weights = validate(WeightMitigation, about.get("weights", {}), where=where, in_file=False)
    how: dict[str, Any] = {"weights": weights, "level": about["level"], "seed": about["seed"], "chip": about["chip"]}
    converted = convert(model, hardware or stored, sample=sample, clip=clip, rules=rules, **how)
    found = crossbars(converted)
    if [operand.name for operand in found.operands] != about["operands"] and hardware is None:
        raise BadInput(f"{file}: is of a model with other products than {type(model).__name__}; give the same model")
    found.state.rounded = about["rounded"]
    if hardware is None:
        found.calibration = (about["calibration"][0], about["calibration"][1])
        _restore_remedies(converted, about["remedies"], tensors, file)
        _restore_ranges(found, tensors, file)
    return converted


def _weights(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Parameters and buffers by name, each tensor once; and the names that stand for one that is there."""
    kept: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    places: dict[tuple[Any, ...], str] = {}
    for name, t in model.state_dict().items():
        if name.startswith(PREFIX):  # stored with the operands
            continue
        if opaque(t):
            raise BadInput(f"{name} is {opaque(t)}, which the file cannot hold; keep plain tensors in the model")
        place = (t.data_ptr(), tuple(t.shape), t.stride(), t.dtype)
        if t.numel() and place in places:
            tied[name] = places[place]
        else:
            kept[name], places[place] = t, name
    return kept, tied


def _remedy(operand: KVOperand) -> dict[str, Any]:
    """What was done for one operand alone, as plain JSON values."""
    found: dict[str, Any] = {}
    if operand.conditioner is not None:
        fitted = [name for name in FITTED if getattr(operand.conditioner, name) is not None]
        found = {"kv": operand.conditioner.spec.canonical(), "fitted": fitted}
    if operand.clip != operand.plain_clip:
        found["clip"] = plain_clip(operand.clip)
    return found


def _restore_remedies(
    converted: nn.Module, remedies: Mapping[str, Any], tensors: Mapping[str, Tensor], file: str | Path
) -> None:
    operands = {op.name: op for op in crossbars(converted).operands if isinstance(op, KVOperand)}
    for name, remedy in remedies.items():
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
            raise BadInput(f"{file}: is damaged (what was done for {name}); save the model again") from error
    if remedies:
        calibrate_ranges(converted)


def _restore_ranges(found: Crossbars, tensors: Mapping[str, Tensor], file: str | Path) -> None:
    for operand in found.operands:
        before = ranges(operand)
        names = {name: f"{_OWN}{operand.name}/{name}" for name in before}
        stored = {name: tensors[key] for name, key in names.items() if key in tensors}
        wrong = unfit(operand, stored)
        if wrong:
            raise BadInput(f"{file}: is damaged ({wrong} of {operand.name}); save the model again")
        set_ranges(operand, stored)
        if any(not stored[name].equal(before[name].to(stored[name])) for name in stored):
            found.largest_inputs.clear()  # they were calibrated on more than the sample


def _described(sample: Any, tensors: dict[str, Tensor]) -> Any:
    """A sample batch as JSON, with its tensors put among the others; None where it holds anything else."""
    match sample:
        case Tensor():
            name = f"{_OWN}sample/{len(tensors)}"
            tensors[name] = sample.clone()  # the file takes no two tensors that share memory
            return {"tensor": name}
        case Mapping():
            parts = {str(name): _described(value, tensors) for name, value in sample.items()}
            return None if None in parts.values() else {"mapping": parts}
        case tuple() | list():
            items = [_described(value, tensors) for value in sample]
            return None if None in items else {"list": items}
        case bool() | int() | float() | str() | None:
            return {"value": sample}
    return None


def _rebuilt(described: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_described`."""
    match described:
        case {"tensor": name}:
            return tensors[name]
        case {"mapping": parts}:
            return {name: _rebuilt(part, tensors) for name, part in parts.items()}
        case {"list": items}:
            return tuple(_rebuilt(item, tensors) for item in items)
        case {"value": value}:
            return value
    return None


def _read(file: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    about, tensors = read_signed(file)
    if about.get("schema") != SCHEMA:
        raise BadInput(f"{file}: has schema {about.get('schema')!r}, this version reads {SCHEMA}; save the model again")
    for name, kind in _KINDS.items():
        if name not in about or not isinstance(about[name], kind) or not _whole(name, about[name], tensors):
            raise BadInput(f"{file}: is damaged ({name} in its metadata); save the model again")
    if about["sha256"] != digest(about, tensors):
        raise BadInput(f"{file}: is damaged (its contents do not have the SHA-256 that it names); save the model again")
    return about, tensors


def _whole(name: str, value: Any, tensors: Mapping[str, Tensor]) -> bool:
    """Whether an entry of the metadata is made as `save` makes it, and the tensors that it names are there."""
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
            return _named(value) <= set(tensors)
    return True


def _named(described: Any) -> set[str]:
    """Names of the tensors of a sample."""
    match described:
        case {"tensor": str(name)}:
            return {name}
        case {"mapping": dict(parts)}:
            return set().union(*(_named(part) for part in parts.values()))
        case {"list": list(items)}:
            return set().union(*(_named(item) for item in items))
    return set()


def _load_weights(model: nn.Module, tensors: Mapping[str, Tensor], tied: Mapping[str, str], file: str | Path) -> None:
    if not isinstance(model, nn.Module):
        raise BadInput(f"model is of type {type(model).__name__}; give an nn.Module")
    if converted_part(model) is not None:
        raise BadInput("restore takes a digital model; give the original, or what revert() returns")
    weights = {name: t for name, t in tensors.items() if not name.startswith(_OWN)}
    weights |= {name: weights[first] for name, first in tied.items()}
    own = model.state_dict()
    for name in [*weights, *own]:
        if name not in weights or name not in own or own[name].shape != weights[name].shape:
            raise BadInput(f"{file}: does not fit {type(model).__name__}, the first difference is {name}")
        if own[name].dtype != weights[name].dtype:
            kinds = f"{weights[name].dtype} in the file and {own[name].dtype} in the model"
            raise BadInput(f"{file}: does not fit {type(model).__name__}: {name} is {kinds}; convert the model's type")
    model.load_state_dict(weights)


def _tuples(rule: Mapping[str, Any]) -> dict[str, Any]:
    """A rule from JSON, whose lists are tuples in a specification."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in rule.items()}
