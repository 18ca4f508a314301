"""Give a model without values the weights of files, which stay in the files until something reads them.

PyTorch maps the files into memory: a weight is read when it is used, and the system may drop it again at any time. So
the weights of a model never lie in memory all at once unless there is room for them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ohmformer.errors import BadInput, check_type
from ohmformer.models.sources import is_file, is_folder
from ohmformer.models.weight_files import UNUSED, check_downloaded, check_index, first_of, safetensors_fault
from ohmformer.textfiles import home_expanded, read_json

WHO = "convert: weights_from"
INDEX, SINGLE = ".safetensors.index.json", "model.safetensors"
"""What the name of a list of files ends in, and the name of a single file."""
Tied = dict[int, list[str]]
"""Identity of a tensor -> its names in the model."""


def give_stored_weights(model: nn.Module, place: str | Path) -> None:
    """Put the weights of safetensors files in the places of tensors without values (meta device).

    Names, shapes and types must be those of the model. Weights that a model holds under several names need to be stored
    under one of them.

    Args:
        model: a model that was built on the meta device; it is changed.
        place: a folder with model.safetensors or a list of files (.safetensors.index.json), or one of these files.

    Raises:
        BadInput: the model holds values already, or a file or weight is missing, damaged or does not fit.
    """
    check_type("convert", "weights_from", place, (str, os.PathLike), "the folder of a checkpoint, or its file")
    check_type("convert", "model", model, nn.Module, "an nn.Module")
    wanted = dict(model.state_dict(keep_vars=True))
    if not any(isinstance(t, Tensor) and t.is_meta for t in wanted.values()):
        raise BadInput(
            f"{WHO}: the model holds weights already; build it on the meta device (accelerate.init_empty_weights()), "
            "or leave weights_from out"
        )
    stored = _open_all(home_expanded(str(place)))
    tied: Tied = {}
    for name, t in wanted.items():
        tied.setdefault(id(t), []).append(name)
    for names in tied.values():
        if not any(name in stored for name in names):
            raise BadInput(f"{WHO}: {place} holds no {names[0]}; complete it, or build the model that belongs to it")
        for name in stored.keys() & set(names):
            _check_fit(name, stored[name], wanted[name])
    extra = [name for name in stored if name not in wanted and name.rpartition(".")[2] not in UNUSED]
    if extra:
        raise BadInput(
            f"{WHO}: {place} holds weights that the model has no place for ({first_of(extra)}); build the model that "
            "belongs to it"
        )
    _assign(model, stored, tied)
    without = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if without:
        raise BadInput(
            f"{WHO}: the buffer {without[0]} is on the meta device, and files hold no such values; build the model in "
            "accelerate.init_empty_weights(), which computes buffers"
        )


def _open_all(place: Path) -> dict[str, tuple[Path, Any]]:
    """Name of each weight -> its file, and the open file."""
    opened = dict[str, tuple[Path, Any]]()
    for file in _files(place):
        try:
            content = safe_open(file, framework="pt")
            names = list(content.keys())  # type: ignore[no-untyped-call]
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{file}: {safetensors_fault(file, error)}; download it again") from None
        for name in names:
            if name in opened:
                raise BadInput(f"{WHO}: {opened[name][0]} and {file} both hold {name}; name one of them")
            opened[name] = file, content
    return opened


def _files(place: Path) -> list[Path]:
    """The files of a checkpoint."""
    if is_file(place):
        found = [place]
    elif is_folder(place):
        check_downloaded(place)
        found = [place / SINGLE] if is_file(place / SINGLE) else sorted(place.glob(f"*{INDEX}"))
        found = found or sorted(place.glob("*.safetensors"))
        if not found:
            raise BadInput(f"{WHO}: {place} holds no .safetensors; save the weights as safetensors there")
    else:
        raise BadInput(f"{WHO}: {place}: there is no such file or folder; correct the path")
    files = list[Path]()
    for file in found:
        if file.name.endswith(INDEX):
            check_index(file)
            files += [file.parent / name for name in sorted(set(read_json(file)["weight_map"].values()))]
        elif file.suffix == ".safetensors":
            files.append(file)
        else:
            raise BadInput(f"{WHO}: {file}: is no .safetensors; save the weights as safetensors")
    return files


def _check_fit(name: str, stored: tuple[Path, Any], wanted: Tensor) -> None:
    """Refuse a stored weight of another shape or type than that of the model."""
    file, content = stored
    found = content.get_tensor(name)  # a view of the mapped file: nothing is read
    if found.shape != wanted.shape:
        raise BadInput(
            f"{file}: {name} has shape {list(found.shape)}, but {list(wanted.shape)} in the model; build the model "
            "that belongs to it"
        )
    if found.dtype is not wanted.dtype:
        kind, expected = (str(t.dtype).removeprefix("torch.") for t in (found, wanted))
        raise BadInput(
            f"{file}: {name} is {kind}, but {expected} in the model; build the model in the type of the file, such as "
            f"model.to({found.dtype}) before its conversion"
        )


def _assign(model: nn.Module, stored: Mapping[str, tuple[Path, Any]], tied: Tied) -> None:
    """Put stored weights into the modules of a model; those with several names stay one tensor."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for names in tied.values():
        name = next(name for name in names if name in stored)
        weight: Tensor = stored[name][1].get_tensor(name)
        for each in names:
            path, _, last = each.rpartition(".")
            module = modules[path]
            if last in module._buffers:
                module._buffers[last] = weight
                continue
            old = module._parameters[last]
            assert old is not None
            weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight, old.requires_grad)
            module._parameters[last] = weight
