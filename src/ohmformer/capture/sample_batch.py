"""What users give as a sample batch, as tensors that a model can be called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import IterableDataset as Stream

from ohmformer.errors import BadInput

_REMEDIES: dict[type | tuple[type, ...], str] = {
    DataLoader: "give one batch of its inputs, such as next(iter(loader))[0]",
    Stream: "give a batch of its inputs, such as torch.stack of a few of them",
    (str, bytes): "give what the tokenizer makes of it, with return_tensors='pt'",
}


def as_sample(sample: Any) -> Any:
    """A tensor, a tuple of arguments or a mapping of arguments, whose arrays and lists of numbers are tensors.

    Inputs that are read from files when they are asked for (such as `task.calibration` of image folders) are read.

    Raises:
        BadInput: it is something else, which is named with its type, or it is empty.
    """
    name = type(sample).__name__
    if sample is None:
        raise BadInput(f"sample is empty: it is of type {name}; give a batch of real inputs")
    for kind, remedy in _REMEDIES.items():
        if isinstance(sample, kind):
            raise BadInput(f"sample is of type {name}; {remedy}")
    if isinstance(sample, Mapping):
        if not any(_holds_tensors(value) for value in sample.values()):
            return {key: _tensor(value, f"sample[{key!r}]") for key, value in sample.items()}
        return _same_kind(sample, {key: _array(value) for key, value in sample.items()})
    if isinstance(sample, (tuple, list)):
        if _numbers(sample):
            return _tensor(sample, "sample")
        return type(sample)(*map(_array, sample)) if hasattr(sample, "_fields") else type(sample)(map(_array, sample))
    if isinstance(sample, (Tensor, np.ndarray)):
        return _array(sample)
    found = _read(sample)
    if found is None:
        raise BadInput(f"sample is of type {name}; give a tensor, a tuple of arguments or a mapping of arguments")
    return found


def arrays_as_tensors(inputs: Any) -> Any:
    """Inputs whose NumPy arrays are tensors; all else stays as it is."""
    if isinstance(inputs, Mapping):
        return _same_kind(inputs, {key: arrays_as_tensors(value) for key, value in inputs.items()})
    if isinstance(inputs, (tuple, list)) and any(isinstance(value, np.ndarray) for value in inputs):
        return tuple(map(arrays_as_tensors, inputs))
    return _array(inputs)


def _same_kind(sample: Mapping[Any, Any], found: dict[Any, Any]) -> Any:
    """The sample itself where nothing in it had to change: libraries have mappings of their own."""
    return sample if all(found[key] is sample[key] for key in found) else found


def _read(sample: Any) -> Tensor | None:
    """Inputs that slices read, all of them; None for other objects."""
    if isinstance(sample, Dataset) or not (hasattr(sample, "__len__") and hasattr(sample, "__getitem__")):
        if isinstance(sample, Dataset):
            raise BadInput(
                f"sample is of type {type(sample).__name__}; give a batch of its inputs, such as "
                "torch.stack([dataset[n][0] for n in range(32)])"
            )
        return None
    if len(sample) == 0:
        raise BadInput("sample is empty; give a batch of at least one input")
    try:
        found = sample[0 : len(sample)]
    except (TypeError, KeyError, IndexError, ValueError):
        return None
    return found if isinstance(found, Tensor) else None


def _array(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind not in "fiubc":
        raise BadInput(f"sample holds an array of type {value.dtype}; give numbers")
    return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray)) or not isinstance(value, (list, tuple)) or not _numbers(value)


def _numbers(value: Any) -> bool:
    """Whether lists hold numbers, and nothing else."""
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(_numbers(one) for one in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _tensor(value: Any, who: str) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise BadInput(f"{who} holds lists of different lengths; pad them to one, or give tensors") from error
