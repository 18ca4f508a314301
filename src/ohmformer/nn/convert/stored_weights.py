"""Give a model without values the weights of files, which stay in the files until something reads them.

PyTorch maps the files into memory: a weight is read when it is used, and the system may drop it again at any time. So
the weights of a model never lie in memory all at once unless there is room for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ohmformer.capture.torch_private import computed_buffers
from ohmformer.errors import BadInput, check_type, one_line
from ohmformer.models.sources import is_file, is_folder
from ohmformer.models.weight_files import (
    PLAIN_TYPES,
    UNUSED,
    check_index,
    check_weight_file,
    entries,
    first_of,
    safetensors_fault,
)
from ohmformer.textfiles import home_expanded, read_json

WHO = "convert: weights_from"
INDEX, SINGLE = ".safetensors.index.json", "model.safetensors"
"""What the name of a list of files ends in, and the name of a single file."""
EMPTY = "accelerate.init_empty_weights()"
"""Context in which a model is built on the meta device, but for its buffers."""


class Place(NamedTuple):
    """A parameter or buffer of a model: where it stands, what stands there, and whether files hold it."""

    table: dict[str, Any]
    key: str
    tensor: Tensor
    in_files: bool


class Stored(NamedTuple):
    """A weight in a file that is open, whose values are not read yet."""

    file: Path
    content: Any
    name: str

    @property
    def kind(self) -> str:
        """Its number type, as safetensors calls it."""
        return str(self.content.get_slice(self.name).get_dtype())

    @property
    def shape(self) -> list[int]:
        """Its shape."""
        return list(self.content.get_slice(self.name).get_shape())

    def tensor(self) -> Tensor:
        """A view of the mapped file: nothing is read."""
        found: Tensor = self.content.get_tensor(self.name)
        return found


@contextmanager
def stored_weights(model: nn.Module, place: str | Path | None) -> Iterator[Mapping[str, Path]]:
    """Put the weights of safetensors files in the places of tensors without values (meta device).

    Names, shapes and types must be those of the model. Weights that a model holds under several names need to be stored
    under one of them. Buffers with values get those of the files too, where these hold any. If the block fails, the
    model is as it was before.

    Args:
        model: a model that was built on the meta device; it is changed.
        place: a folder with model.safetensors or a list of files (.safetensors.index.json), or one of these files; None
            changes nothing.

    Returns:
        Name of each parameter and buffer -> the file that holds it.

    Raises:
        BadInput: a parameter of the model has a value, or a file or weight is missing, damaged or does not fit.
    """
    if place is None:
        yield {}
        return
    check_type("convert", "weights_from", place, (str, os.PathLike), "the folder of a checkpoint, or its file")
    if not os.fsdecode(place).strip():
        raise BadInput(f"{WHO} = '': names no folder; name that of the checkpoint, or '.' for the working directory")
    places = _places(model)
    _check_empty(places)
    stored = _open_all(home_expanded(os.fsdecode(place)))
    chosen = _chosen(places, stored, os.fsdecode(place))
    try:
        _assign(places, chosen)
        yield {name: weight.file for name, weight in chosen.items()}
    except BaseException:  # an interrupt from the keyboard, too
        for each in places.values():
            each.table[each.key] = each.tensor
        raise


def _places(model: nn.Module) -> dict[str, Place]:
    """The parameters and buffers of a model by name; several names may have the same tensor."""
    found = dict[str, Place]()
    for path, module in model.named_modules(remove_duplicate=False):
        computed = computed_buffers(module)
        for table in (module._parameters, module._buffers):
            for key, tensor in table.items():
                if tensor is not None:
                    found[f"{path}.{key}".lstrip(".")] = Place(table, key, tensor, key not in computed)
    return found


def _check_empty(places: Mapping[str, Place]) -> None:
    """Refuse a model with values, which those of files would replace.

    Raises:
        BadInput: no tensor is on the meta device, or a parameter is not.
    """
    empty = [name for name, place in places.items() if place.tensor.is_meta]
    if not empty:
        raise BadInput(
            f"{WHO}: the model holds weights already; build it on the meta device ({EMPTY}), or leave weights_from out"
        )
    full = [
        name for name, place in places.items() if isinstance(place.tensor, nn.Parameter) and not place.tensor.is_meta
    ]
    if full:
        raise BadInput(
            f"{WHO}: {first_of(full)} of the model already holds values, but {empty[0]} none; build all of the model "
            f"on the meta device ({EMPTY}), and save weights of your own in the folder too"
        )


def _open_all(place: Path) -> dict[str, Stored]:
    """Name of each weight -> where it is."""
    opened = dict[str, Stored]()
    for file in _files(place):
        check_weight_file(file)
        try:
            content = safe_open(file, framework="pt")
            names = list(content.keys())  # type: ignore[no-untyped-call]
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{file}: {safetensors_fault(file, error, 'download it again')}") from None
        for name in names:
            if name in opened:
                raise BadInput(f"{WHO}: {opened[name].file} and {file} both hold {name}; name one of them")
            opened[name] = Stored(file, content, name)
    return opened


def _files(place: Path) -> list[Path]:
    """The files of a checkpoint."""
    if is_file(place):
        found = [place]
    elif is_folder(place):
        names = {entry.name: entry for entry in entries(place)}
        lists = [entry for name, entry in names.items() if name.endswith(INDEX)]
        found = [names[SINGLE]] if SINGLE in names else lists
        found = found or [entry for entry in names.values() if entry.suffix == ".safetensors"]
        if not found:
            raise BadInput(f"{WHO}: {place} holds no .safetensors; save the weights as safetensors there")
    else:
        link, there = os.path.islink(place), os.path.lexists(place)
        what = "is a link that leads nowhere" if link else "is neither a folder nor a regular file"
        raise BadInput(f"{WHO}: {place}: {what if there else 'there is no such file or folder'}; correct the path")
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


def _chosen(places: Mapping[str, Place], stored: Mapping[str, Stored], where: str) -> dict[str, Stored]:
    """Name of each parameter and buffer -> the weight that it gets; buffers without one keep their values.

    Raises:
        BadInput: a weight is missing, has no place in the model, or does not fit.
    """
    tied: dict[int, list[str]] = {}
    for name, place in places.items():
        tied.setdefault(id(place.tensor), []).append(name)
    chosen = dict[str, Stored]()
    for names in tied.values():
        held = [name for name in names if name in stored and places[name].in_files]
        for name in held:
            _check_fit(stored[name], places[name].tensor, stored.values())
        _check_same([stored[name] for name in held])
        chosen |= dict.fromkeys(names, stored[held[0]]) if held else {}
        if not held:
            _check_missing(names, places[names[0]], where)
    known = {name for name, place in places.items() if place.in_files}
    extra = [name for name in stored if name not in known and name.rpartition(".")[2] not in UNUSED]
    if extra:
        raise BadInput(
            f"{WHO}: {where} holds weights that the model has no place for ({first_of(extra)}); build the model that "
            "belongs to it"
        )
    return chosen


def _check_missing(names: list[str], place: Place, where: str) -> None:
    """Refuse a parameter or buffer, of these names, that no file holds.

    Raises:
        BadInput: it needs a value of a file; buffers that outputs do not depend on, or that models compute, do not.
    """
    name = names[0]
    if not place.in_files and place.tensor.is_meta:
        raise BadInput(
            f"{WHO}: the buffer {name} is on the meta device, and files hold no such values; build the model in "
            f"{EMPTY}, which computes buffers"
        )
    unused = name.rpartition(".")[2] in UNUSED and not place.tensor.is_meta
    if place.in_files and not unused:
        raise BadInput(
            f"{WHO}: {where} holds no {name}; complete it, call model.tie_weights() if another weight stands for it, "
            "or build the model that belongs to it"
        )


def _check_fit(stored: Stored, wanted: Tensor, others: Iterable[Stored]) -> None:
    """Refuse a stored weight of another shape or type than that of the model."""
    start = f"{stored.file}: {stored.name}"
    if stored.shape != list(wanted.shape):
        raise BadInput(
            f"{start} has shape {stored.shape}, but {list(wanted.shape)} in the model; build the model that belongs to "
            "it"
        )
    if wanted.is_floating_point() and stored.kind not in PLAIN_TYPES:
        raise BadInput(
            f"{start} is stored as {stored.kind}, a code of a quantized model whose scale is elsewhere; take a "
            "checkpoint with floating-point numbers, since crossbars quantize weights themselves"
        )
    try:
        found = stored.tensor().dtype
    except (SafetensorError, AttributeError, KeyError) as error:
        raise BadInput(
            f"{start} is stored as {stored.kind}, which cannot be read ({one_line(error)}); store {wanted.dtype}"
        ) from None
    if found is wanted.dtype:
        return
    kind, expected = (str(t).removeprefix("torch.") for t in (found, wanted.dtype))
    if not wanted.is_floating_point():
        remedy = f"store it as {expected}"
    elif len({other.kind for other in others if other.kind in PLAIN_TYPES}) > 1:
        remedy = f"the files hold several types, so build this part of the model in its type: .to({found})"
    else:
        remedy = f"build the model in the type of the file, such as model.to({found}) before its conversion"
    raise BadInput(f"{start} is {kind}, but {expected} in the model; {remedy}")


def _check_same(held: list[Stored]) -> None:
    """Refuse different values for a tensor that the model holds under several names.

    Raises:
        BadInput: values differ in some bit.
    """
    for other in held[1:]:
        first, second = (each.tensor().reshape(-1).view(torch.uint8) for each in (held[0], other))
        if not torch.equal(first, second):
            raise BadInput(
                f"{WHO}: {held[0].name} and {other.name} are one tensor in the model (tied weights), but have "
                f"different values in {other.file}; build the model without tying them "
                "(tie_word_embeddings=False), or remove the one that is wrong"
            )


def _assign(places: Mapping[str, Place], chosen: Mapping[str, Stored]) -> None:
    """Put stored weights into the modules of a model; those with several names stay one tensor."""
    new = dict[int, Tensor]()
    for name, weight in chosen.items():
        table, key, old, _ = places[name]
        if id(old) not in new:
            found = weight.tensor()
            new[id(old)] = nn.Parameter(found, old.requires_grad) if isinstance(old, nn.Parameter) else found
        table[key] = new[id(old)]
