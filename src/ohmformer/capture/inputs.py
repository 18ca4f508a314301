"""Inputs of models: cut them into batches, take samples of them, and call a model with them.

Inputs are a tensor, or nested mappings and lists of tensors, with the samples as the first axis.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ohmformer.capture.torch_private import tree_leaves, tree_map_only
from ohmformer.errors import BadInput, one_line
from ohmformer.quantities import whole_number

Inputs = Any
"""A tensor [N, ...], another object with a length and slices (such as images that are read from files), or mappings and
lists of these. All other values are constants, which every batch gets unchanged."""


def leaves(inputs: Inputs, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every value but mappings, tuples and lists; the path of a single tensor is empty."""
    if isinstance(inputs, Mapping):
        for key in inputs:
            yield from leaves(inputs[key], f"{path}.{key}" if path else str(key))
    elif isinstance(inputs, (tuple, list)):
        for index, value in enumerate(inputs):
            yield from leaves(value, f"{path}.{index}" if path else str(index))
    else:
        yield path, inputs


def size(inputs: Inputs) -> int:
    """Number of samples; 0 without any tensor.

    Raises:
        BadInput: the tensors have different numbers of samples.
    """
    sizes = {path: len(value) for path, value in leaves(inputs) if _has_rows(value)}
    if len(set(sizes.values())) > 1:
        listing = ", ".join(f"{path} {count}" for path, count in sizes.items())
        raise BadInput(f"inputs have different numbers of samples ({listing}); give every tensor one row per sample")
    return next(iter(sizes.values()), 0)


def batches(inputs: Inputs, batch: int) -> Iterator[slice]:
    """The rows of each batch, in order; the last batch may be smaller.

    Args:
        inputs: inputs of N samples.
        batch: samples per batch.

    Raises:
        BadInput: `batch` is not a whole number of 1 or more, or the tensors have different numbers of samples.
    """
    rows = whole_number(batch)
    if rows < 1:
        raise BadInput(f"batch = {one_line(batch)}: must be a whole number, 1 or more")
    count = size(inputs)
    for start in range(0, count, rows):
        yield slice(start, min(start + rows, count))


def take(inputs: Inputs, rows: slice) -> Inputs:
    """The samples `rows` of the inputs, in the same structure."""
    if isinstance(inputs, Mapping):
        return {key: take(value, rows) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(take(value, rows) for value in inputs)
    return inputs[rows] if _has_rows(inputs) else inputs


def _has_rows(value: Any) -> bool:
    """True if a value has one row per sample; False for constants."""
    if isinstance(value, Tensor):
        return value.dim() > 0
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (str, bytes))


def call(model: nn.Module, sample: Any) -> Any:
    """Call a model with a sample batch.

    Args:
        model: the model.
        sample: a tensor, a tuple of arguments or a mapping of keyword arguments. Tensors in main memory are moved to
            the device of the model. A sample with other objects, such as a KV cache that calls change, is copied.

    Returns:
        The output of the model.
    """
    sample = at_home(model, sample)
    if any(not isinstance(leaf, (Tensor, int, float, str, bool, type(None))) for leaf in tree_leaves(sample)):
        # deepcopy refuses tensors with a history of autograd, so detached copies take their place.
        sample = copy.deepcopy(sample, {id(t): t.detach().clone() for t in _tensors_inside(sample)})
    if isinstance(sample, Mapping):
        return model(**sample)
    if isinstance(sample, (tuple, list)):
        return model(*sample)
    return model(sample)


def at_home(model: nn.Module, sample: Any) -> Any:
    """The sample with its tensors in main memory moved to the device of the model's first parameter."""
    first = next(model.parameters(), None)
    if first is None or first.device.type in ("cpu", "meta"):
        return sample
    leaves = tree_leaves(as_plain_dict(sample))
    if not any(isinstance(leaf, Tensor) and leaf.device.type == "cpu" for leaf in leaves):
        return sample
    device = first.device
    return tree_map_only(Tensor, lambda t: t.to(device) if t.device.type == "cpu" else t, as_plain_dict(sample))


def _tensors_inside(sample: Any) -> list[Tensor]:
    """All tensors of a sample, those inside its objects (such as a KV cache) included."""
    tensors, todo, visited = [], [sample], set()
    while todo:
        value = todo.pop()
        if id(value) in visited or isinstance(value, (str, bytes, int, float, type(None))):
            continue
        visited.add(id(value))
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, Mapping):
            todo.extend(value.values())
        elif isinstance(value, (tuple, list)):
            todo.extend(value)
        elif not isinstance(value, (type, nn.Module)):
            todo.extend(getattr(value, "__dict__", {}).values())
    return tensors


_WITHOUT_TENSORS = {int, float, bool, str, type(None), torch.dtype, torch.device}


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors among nested arguments or outputs, in order."""
    if isinstance(values, Tensor):
        return [values]
    kind = type(values)
    if kind in _WITHOUT_TENSORS or (kind is dict and not values):
        return []
    if kind is tuple or kind is list:  # the usual arguments, in a fraction of the time of `tree_leaves`
        return [t for value in values for t in tensors_in(value)]
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def batch_size(sample: Any, axis: int = 0) -> int:
    """Number of samples in a batch: the size of its first tensor along an axis; 0 without any tensor."""
    tensors = [leaf for leaf in tree_leaves(as_plain_dict(sample)) if isinstance(leaf, Tensor) and leaf.dim() > axis]
    return tensors[0].shape[axis] if tensors else 0


def as_plain_dict(sample: Any) -> Any:
    """A mapping as a dict, since pytree does not look into mappings of other classes; any other sample unchanged."""
    return dict(sample) if isinstance(sample, Mapping) else sample
