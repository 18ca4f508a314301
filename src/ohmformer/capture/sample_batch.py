"""Sample batches of users, converted to tensors with which a model can be called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set, ValuesView
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import IterableDataset as Stream

from ohmformer.errors import BadInput, given

_REMEDIES: dict[type | tuple[type, ...], str] = {
    DataLoader: "give one batch of its inputs, such as next(iter(loader))[0]",
    Stream: "give a batch of its inputs, such as torch.stack of a few of them",
    (str, bytes): "give what the tokenizer makes of it, with return_tensors='pt'",
}


def as_sample(sample: Any, who: str = "sample") -> Any:
    """Convert the arrays and lists of numbers of a sample batch to tensors.

    Args:
        sample: a tensor, an array, a tuple or mapping of arguments, or inputs that are read from files by slices (such
            as `task.calibration` of image folders), which are read.
        who: its name in messages.

    Returns:
        A tensor, or a tuple or mapping of arguments.

    Raises:
        BadInput: the sample is empty, or of another type.
    """
    name = type(sample).__name__
    if sample is None:
        raise BadInput(f"{who} is empty: it is None; give a batch of real inputs")
    for kind, remedy in _REMEDIES.items():
        if isinstance(sample, kind):
            raise BadInput(f"{who} is of type {name}; {remedy}")
    if isinstance(sample, Mapping):
        if not any(_holds_tensors(value) for value in sample.values()):
            return {key: _tensor(value, f"{who}[{key!r}]") for key, value in sample.items()}
        return _unless_equal(sample, {key: _array_as_tensor(value) for key, value in sample.items()})
    if isinstance(sample, (tuple, list)):
        if _holds_only_numbers(sample):
            return _tensor(sample, who)
        tensors = map(_array_as_tensor, sample)
        return type(sample)(*tensors) if hasattr(sample, "_fields") else type(sample)(tensors)
    if isinstance(sample, (Tensor, np.ndarray)):
        return _array_as_tensor(sample)
    tensor = _read_by_slice(sample, who)
    if tensor is None:
        raise BadInput(f"{who} is of type {name}; give a tensor, a tuple of arguments or a mapping of arguments")
    return tensor


ONE_OR_SEVERAL = (
    "give a tensor, a mapping or a tuple of arguments as one batch, or a list, a data loader or a generator of batches"
)


def several_batches(inputs: Any, who: str, sample: Any) -> list[Any] | None:
    """The batches of inputs that hold several of them; None if the inputs are one batch.

    A list, a data loader or a generator holds several batches. A tensor, an array, a mapping or a tuple of arguments,
    or inputs that are read from files by slices, are one batch.

    Args:
        inputs: one batch or several.
        who: their name in messages.
        sample: the sample of the conversion.

    Raises:
        BadInput: the inputs are neither, or a list of tensors may be the arguments of one call as well.
    """
    loads = isinstance(inputs, (DataLoader, Iterator)) or _only_iterates(inputs)
    if isinstance(inputs, (str, bytes, Set, ValuesView)) or not (loads or hasattr(inputs, "__len__")):
        raise BadInput(f"{who} is {given(inputs)}; {ONE_OR_SEVERAL}")
    if not loads and not isinstance(inputs, list):
        return None
    batches = list(inputs)
    arguments = len(sample) if isinstance(sample, (tuple, list)) else 1
    single = all(isinstance(batch, (Tensor, np.ndarray)) for batch in batches)
    if isinstance(inputs, list) and single and len(batches) == arguments > 1:
        raise BadInput(
            f"{who} is a list of {arguments} tensors, as many as the model was converted with as arguments; give one "
            "batch as a tuple of arguments, or a list of such tuples"
        )
    return batches


def _only_iterates(inputs: Any) -> bool:
    """True if an object yields batches but cannot be indexed, as data loaders of other libraries do."""
    return isinstance(inputs, Iterable) and not hasattr(inputs, "__getitem__")


def arrays_as_tensors(inputs: Any, who: str = "sample") -> Any:
    """Inputs with their NumPy arrays converted to tensors; all other values are unchanged.

    Args:
        inputs: a batch.
        who: what it is, for messages.

    Raises:
        BadInput: an array holds other values than numbers.
    """
    if isinstance(inputs, Mapping):
        return _unless_equal(inputs, {key: arrays_as_tensors(value, who) for key, value in inputs.items()})
    if isinstance(inputs, (tuple, list)) and any(isinstance(value, np.ndarray) for value in inputs):
        return tuple(arrays_as_tensors(value, who) for value in inputs)
    return _array_as_tensor(inputs, who)


def _unless_equal(sample: Mapping[Any, Any], converted: dict[Any, Any]) -> Any:
    """The converted mapping; the sample itself if nothing was converted, since libraries have their own mappings."""
    return sample if all(converted[key] is sample[key] for key in converted) else converted


def _read_by_slice(sample: Any, who: str) -> Tensor | None:
    """All inputs of an object with a length and slices; None for other objects."""
    if isinstance(sample, (Dataset, type)) or not (hasattr(sample, "__len__") and hasattr(sample, "__getitem__")):
        if isinstance(sample, Dataset):
            raise BadInput(
                f"{who} is of type {type(sample).__name__}; give a batch of its inputs, such as "
                "torch.stack([dataset[n][0] for n in range(32)])"
            )
        return None
    if len(sample) == 0:
        raise BadInput(f"{who} is empty; give a batch of at least one input")
    try:
        inputs = sample[0 : len(sample)]
    except (TypeError, KeyError, IndexError, ValueError):
        return None
    return inputs if isinstance(inputs, Tensor) else None


def _array_as_tensor(value: Any, who: str = "sample") -> Any:
    """A NumPy array as a tensor; any other value unchanged."""
    if not isinstance(value, np.ndarray):
        return value
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise BadInput(f"{who} holds a masked array, whose masked values are not known; fill or remove them")
    if value.dtype.kind not in "fiubc":
        raise BadInput(f"{who} holds an array of type {value.dtype}; give numbers")
    try:
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    except TypeError as error:  # numbers of more than 64 bits
        raise BadInput(f"{who} holds an array of type {value.dtype}; give float32 or float64") from error


def _holds_tensors(value: Any) -> bool:
    """False for nested lists of numbers, which are one tensor themselves; True for everything else."""
    return (
        isinstance(value, (Tensor, np.ndarray))
        or not isinstance(value, (list, tuple))
        or not _holds_only_numbers(value)
    )


def _holds_only_numbers(value: Any) -> bool:
    """True for a number, and for nested lists that hold numbers only."""
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(_holds_only_numbers(item) for item in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _tensor(value: Any, who: str) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise BadInput(f"{who} holds lists of different lengths; pad them to one, or give tensors") from error
