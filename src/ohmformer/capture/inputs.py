"""Inputs of many samples: a tensor, or nested mappings and lists of tensors, with the sample as leading axis."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from ohmformer.errors import BadInput, one_line
from ohmformer.quantities import whole_number

Inputs = Any
"""A tensor [N, ...], something else with a length and slices (such as images read from files), or mappings and lists of
these. Other values are constants that every batch gets as they are."""


def leaves(inputs: Inputs, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of all that is no mapping, tuple or list; the path of a single tensor is empty."""
    if isinstance(inputs, Mapping):
        for key in inputs:
            yield from leaves(inputs[key], f"{path}.{key}" if path else str(key))
    elif isinstance(inputs, (tuple, list)):
        for index, value in enumerate(inputs):
            yield from leaves(value, f"{path}.{index}" if path else str(index))
    else:
        yield path, inputs


def size(inputs: Inputs) -> int:
    """How many samples there are; 0 without any tensor.

    Raises:
        BadInput: the tensors have different numbers of samples.
    """
    sizes = {path: len(value) for path, value in leaves(inputs) if _has_rows(value)}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{path} {count}" for path, count in sizes.items())
        raise BadInput(f"inputs have different numbers of samples ({found}); give every tensor one row per sample")
    return next(iter(sizes.values()), 0)


def batches(inputs: Inputs, batch: int) -> Iterator[slice]:
    """The rows of one batch after the other; the last may have fewer.

    Raises:
        BadInput: batch is no whole number of 1 or more, or the tensors have different numbers of samples.
    """
    rows = whole_number(batch)
    if rows < 1:
        raise BadInput(f"batch = {one_line(batch)}: must be a whole number, 1 or more")
    count = size(inputs)
    for start in range(0, count, rows):
        yield slice(start, min(start + rows, count))


def take(inputs: Inputs, rows: slice) -> Inputs:
    """The samples of a slice, in the same structure."""
    if isinstance(inputs, Mapping):
        return {key: take(value, rows) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(take(value, rows) for value in inputs)
    return inputs[rows] if _has_rows(inputs) else inputs


def _has_rows(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dim() > 0
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (str, bytes))


def call(model: nn.Module, sample: Any) -> Any:
    """The model's output for a sample batch: a tensor, a tuple of arguments, or a mapping of keyword arguments.

    A sample that holds anything else than tensors, such as a cache that calls fill, is copied first. Tensors in main
    memory are moved to where the model is.
    """
    sample = at_home(model, sample)
    if any(not isinstance(leaf, (Tensor, int, float, str, bool, type(None))) for leaf in tree_leaves(sample)):
        # Autograd's history cannot be copied.
        sample = copy.deepcopy(sample, {id(t): t.detach().clone() for t in _hidden(sample)})
    if isinstance(sample, Mapping):
        return model(**sample)
    if isinstance(sample, (tuple, list)):
        return model(*sample)
    return model(sample)


def at_home(model: nn.Module, sample: Any) -> Any:
    """A sample whose tensors in main memory are on the device of the model's first parameter."""
    first = next(model.parameters(), None)
    if first is None or first.device.type in ("cpu", "meta"):
        return sample
    leaves = tree_leaves(_plain(sample))
    if not any(isinstance(leaf, Tensor) and leaf.device.type == "cpu" for leaf in leaves):
        return sample
    home = first.device
    return tree_map_only(Tensor, lambda t: t.to(home) if t.device.type == "cpu" else t, _plain(sample))


def _hidden(sample: Any) -> list[Tensor]:
    """Tensors inside the objects of a sample, such as a cache of layers."""
    found, todo, seen = [], [sample], set()
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, (str, bytes, int, float, type(None))):
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            found.append(one)
        elif isinstance(one, Mapping):
            todo.extend(one.values())
        elif isinstance(one, (tuple, list)):
            todo.extend(one)
        elif not isinstance(one, (type, nn.Module)):
            todo.extend(getattr(one, "__dict__", {}).values())
    return found


def batch_size(sample: Any, axis: int = 0) -> int:
    """Samples in a batch: the size of its first tensor along an axis; 0 without any."""
    tensors = [leaf for leaf in tree_leaves(_plain(sample)) if isinstance(leaf, Tensor) and leaf.dim() > axis]
    return tensors[0].shape[axis] if tensors else 0


def _plain(sample: Any) -> Any:
    """A batch without its mapping class, whose leaves pytree may not find."""
    return dict(sample) if isinstance(sample, Mapping) else sample
