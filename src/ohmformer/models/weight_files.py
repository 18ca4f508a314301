"""Do the weights in the files of a model belong to the model that its configuration describes?"""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ohmformer.errors import BadInput, shown
from ohmformer.models.sources import is_file, is_folder
from ohmformer.textfiles import read_json
from ohmformer.wording import with_article

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
"""Suffixes of files of weights."""

READ_SUFFIXES = (*SUFFIXES, ".json", ".txt", ".model", ".jinja", ".gguf")
"""Suffixes of the files that loaders of models and tokenizers open."""

USUAL_NAMES = ("model", "pytorch_model")
"""Beginnings of the names of such files. Others, such as training_args.bin, may hold something else."""

POINTER = b"version https://git-lfs.github.com/spec/"
"""First bytes of a Git LFS pointer: a small text that stands for a file that was not downloaded."""

UNUSED = frozenset(
    {"mask_token", "position_ids", "relative_position_index", "num_batches_tracked", "inv_freq", "masked_bias"}
)
"""Last parts of names that change no output: tokens of pretraining alone, and buffers that models compute anew."""

LEFT_OUT = "pooler"
"""Part of a base model that models with some heads leave out."""

DEPTHS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers")
"""Names of the number of layers in configurations."""

PLAIN_TYPES = {"F64", "F32", "F16", "BF16", "torch.float64", "torch.float32", "torch.float16", "torch.bfloat16"}
"""Number types of weights that need no scale, as safetensors and torch call them."""

AGAIN = "download it again, or save the model again"
"""Remedy for a damaged file."""


def check_depth(where: str, config: Any) -> None:
    """Refuse a configuration without layers.

    Raises:
        BadInput: a number of layers is below 1, and the configuration has no positive one.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    counts = {name: getattr(text, name, None) for name in DEPTHS}
    numbers = {name: value for name, value in counts.items() if isinstance(value, int)}
    if numbers and max(numbers.values()) < 1:
        name, value = next(iter(numbers.items()))
        raise BadInput(f"{where}: config.json: {name} = {value}: must be 1 or more; correct it")


def check_regular(folder: Path) -> None:
    """Refuse a folder in which a pipe, a device, a folder or a broken link has the name of a file that loaders open.

    Loaders would wait for a pipe without end, read a device without end, or ignore the entry.

    Raises:
        BadInput: there is such an entry, or the folder cannot be listed.
    """
    for entry in entries(folder):
        if entry.suffix.lower() in READ_SUFFIXES:
            _check_entry(entry)


def check_downloaded(folder: Path) -> None:
    """Refuse a folder in which a file of weights is empty or a Git LFS pointer.

    Raises:
        BadInput: a file of weights was not downloaded, or cannot be opened.
    """
    for file in entries(folder):
        if file.suffix in SUFFIXES and is_file(file):
            _check_content(file)


def check_weight_file(file: Path) -> None:
    """Refuse a file of weights that is not a regular file, cannot be opened, is empty, or is a Git LFS pointer.

    Raises:
        BadInput: it is.
    """
    _check_entry(file)
    _check_content(file)


def _check_entry(entry: Path) -> None:
    if not is_file(entry):
        what = "a folder" if is_folder(entry) else "a broken link" if not entry.exists() else "a pipe or device"
        raise BadInput(f"{entry}: is {what}; put a regular file there, or remove it")


def _check_content(file: Path) -> None:
    start = _first_bytes(file)
    if start == POINTER or not start:
        what = "is a Git LFS pointer instead of weights" if start else "is empty"
        raise BadInput(f"{file}: {what}; download it again, such as with git lfs pull")


def entries(folder: Path) -> list[Path]:
    """Return what a folder holds, sorted; nothing for what is no folder.

    Raises:
        BadInput: the folder cannot be listed.
    """
    if not is_folder(folder):
        return []
    if not os.access(folder, os.X_OK):
        raise BadInput(f"{folder}: may not be entered; change its permissions")
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read ({error.strerror}); change its permissions") from None


def _first_bytes(file: Path) -> bytes:
    try:
        with open(file, "rb") as content:
            return content.read(len(POINTER))
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror}); change its permissions") from None


def check_undamaged(folder: Path) -> None:
    """Find the damaged file after the weights in a folder could not be loaded.

    Safetensors files are checked if there are any, since loaders prefer them.

    Raises:
        BadInput: a file of weights or an index of such files is damaged, or the index names a file that is missing.
    """
    files = _weight_files(folder)
    indices = [entry for entry in entries(folder) if entry.name.endswith(".index.json")]
    for index in [] if _has_single_file(files) else indices:
        check_index(index)
    if not files:
        raise BadInput(
            f"{folder}: holds no weights ({', '.join(SUFFIXES)}); put them there, or set model.weights = 'random'"
        )
    for file in files:
        stored_types(file)


def _weight_files(folder: Path) -> list[Path]:
    """The files of weights that a loader opens: those with the usual names, else all."""
    files = [entry for entry in entries(folder) if entry.suffix in SUFFIXES and is_file(entry)]
    files = [file for file in files if file.name.startswith(USUAL_NAMES)] or files
    return [file for file in files if file.suffix == ".safetensors"] or files


def _has_single_file(files: Iterable[Path]) -> bool:
    return any(file.name in ("model.safetensors", "pytorch_model.bin") for file in files)


def check_index(index: Path) -> None:
    """Refuse a list of files of weights that is damaged, or names a file that is missing.

    Raises:
        BadInput: it is.
    """
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise BadInput(f"{index}: weight_map: must be a table from names of weights to files; {AGAIN}")
    if missing := next((name for name in sorted(set(places.values())) if not is_file(index.parent / name)), None):
        raise BadInput(f"{index}: names the file {missing}, which is not there; download all files of the model")


def stored_types(file: Path) -> dict[str, str]:
    """Read the names and number types of the weights in a file, without their values.

    Raises:
        BadInput: the file is damaged, or holds something other than tensors by name.
    """
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as content:
                return {name: content.get_slice(name).get_dtype() for name in content.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{file}: {safetensors_fault(file, error, AGAIN)}") from None
    return {name: str(value.dtype) for name, value in _pickled(file).items() if isinstance(value, Tensor)}


def safetensors_fault(file: Path, error: Exception, again: str) -> str:
    """Return what is wrong with a file that cannot be opened as safetensors, and what to do.

    Args:
        file: the file.
        error: what opening it raised.
        again: the remedy for a damaged file.
    """
    unknown = re.search("unknown variant `(.*?)`, expected one of `BOOL`", str(error))
    if unknown is not None:
        kind = unknown[1]
        name = next((f"{name} is stored as {kind}: " for name, other in _header(file) if other == kind), "")
        return (
            f"{name}type {kind} is not known to safetensors {version('safetensors')}; install a newer version of it, "
            "or save the weights as floating-point numbers"
        )
    if "not fully covered" in str(error):
        size = file.stat().st_size
        return f"is cut off or has bytes added: its {size:,} bytes are not those that its header lists; {again}"
    if "invalid shape, data type, or offset" in str(error):
        return f"is damaged: its header gives a weight a type, shape or place that does not fit the others; {again}"
    return f"is damaged or cut off: it does not begin with a safetensors header; {again}"


def _header(file: Path) -> list[tuple[str, object]]:
    """The name and type of each weight in the header of a safetensors file: its length, eight bytes, then JSON."""
    with open(file, "rb") as content:
        header = json.loads(content.read(int.from_bytes(content.read(8), "little")))
    return [(name, entry.get("dtype")) for name, entry in header.items()]


def _pickled(file: Path) -> Mapping[str, Any]:
    """Read a file that `torch.save` wrote; the values of a zip archive stay in the file."""
    zipped = _first_bytes(file)[:2] == b"PK"
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "GLOBAL" in str(error):
            fault = "holds Python objects other than tensors; save the model's state_dict() alone, as safetensors"
        else:
            fault = f"is damaged, or was not written by torch.save; {AGAIN}"
        raise BadInput(f"{file}: {fault}") from None
    except Exception:  # damaged bytes make torch raise many kinds of errors, without the name of the file
        fault = "cut off or damaged" if zipped else "damaged, or was not written by torch.save"
        raise BadInput(f"{file}: is {fault}; {AGAIN}") from None
    nested = [value for value in content.values() if isinstance(value, Mapping)] if isinstance(content, Mapping) else []
    tables = [content, *nested] if isinstance(content, Mapping) else []
    if not any(isinstance(value, Tensor) for table in tables for value in table.values()):
        named = isinstance(content, Mapping)
        what = f"{shown(list(content)[:3])} by name" if named else with_article(type(content).__name__)
        raise BadInput(f"{file}: holds {what} instead of a table of tensors; save the model's state_dict() alone")
    table: Mapping[str, Any] = content
    return table


def check_types(folder: Path, model: Any) -> None:
    """Refuse weights that are stored as integers or in 8 bits, but are not part of a known quantization.

    Such codes have a scale elsewhere; taken as values they give wrong outputs.

    Args:
        folder: the model's folder; other places are not checked.
        model: the model that was loaded from the folder.

    Raises:
        BadInput: a weight has such a type.
    """
    if getattr(getattr(model, "config", None), "quantization_config", None):
        return
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    names = {name.removeprefix(prefix) for name, value in model.named_parameters() if value.is_floating_point()}
    for file in _weight_files(folder):
        for name, kind in stored_types(file).items():
            if kind not in PLAIN_TYPES and name.removeprefix(prefix) in names:
                raise BadInput(
                    f"{file}: {name} is stored as {kind.removeprefix('torch.')}, without quantization_config in "
                    "config.json; save the model's weights as floating-point numbers"
                )


def left_over(model: Any, unexpected: Iterable[str]) -> list[str]:
    """Return the names of weights in the files that belong to parts of the model but have no place in it.

    Weights of other heads, and of a pooling layer that is left out, are not part of the model. Weights of a further
    layer, a bias that the configuration leaves out, or a further part of the base model are.

    Args:
        model: a model of transformers.
        unexpected: names of weights that the model did not take, without those that transformers ignores.
    """
    base: nn.Module = getattr(model, "base_model", model)
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    parts = {name for name, _ in base.named_children()}
    names = []
    for name in sorted(unexpected):
        inside = prefix != "." and name.startswith(prefix)
        part, *rest = (name.removeprefix(prefix) if inside else name).split(".")
        known = part in parts or (inside and part != LEFT_OUT)
        if known and rest and rest[-1] not in UNUSED:
            names.append(name)
    return names


def check_complete(where: str, model: Any, info: Mapping[str, Any], head: str) -> None:
    """Refuse a model that lacks weights, has weights of other shapes, or files with weights that have no place in it.

    Args:
        where: beginning of messages.
        model: a model of transformers.
        info: what its loader reports: `missing_keys`, `unexpected_keys`, `mismatched_keys`, `error_msgs`.
        head: the head that was asked for.

    Raises:
        BadInput: the weights and the model do not belong together.
    """
    unexpected = sorted(info.get("unexpected_keys") or ())
    missing = sorted(info.get("missing_keys") or ())
    belongs = "take the config.json that belongs to the weights"
    if extra := left_over(model, unexpected):
        raise BadInput(
            f"{where}: the files hold weights that config.json has no place for ({first_of(extra)}), such as of "
            f"more layers; {belongs}"
        )
    if wrong := sorted(info.get("mismatched_keys") or (), key=lambda entry: (-len(entry[1]), entry[0])):
        name, stored, expected = wrong[0]
        shapes = f"{name} has shape {list(stored)} in the files but {list(expected)} by config.json"
        labels = getattr(model.config, "num_labels", None)
        is_head = not name.startswith(f"{getattr(model, 'base_model_prefix', '')}.") and labels in expected
        classes = f", which has {labels} classes (id2label, num_labels)" if is_head else ""
        raise BadInput(f"{where}: {shapes}{classes}; {belongs}")
    if len(missing) > len(model.state_dict()) / 2 and unexpected:
        raise BadInput(
            f"{where}: the files name weights in another way: {unexpected[0]} is there, {missing[0]} is not; save the "
            "model with save_pretrained"
        )
    if missing:
        classifies = head.endswith("classification")
        remedy = "choose a model that was trained for it" if classifies else "complete the folder"
        probe = ", or put a probe behind its features (task.probe = true)" if classifies else ""
        raise BadInput(f"{where}: has no trained weights for {first_of(missing)} (head {head}); {remedy}{probe}")
    if errors := info.get("error_msgs"):
        raise BadInput(f"{where}: the weights do not fit config.json ({next(iter(errors))}); {belongs}")


def first_of(names: list[str]) -> str:
    """Return the first of some names, and the number of the others, for a message."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
