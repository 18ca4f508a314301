"""The inputs of `calibrate`: one batch, or several batches, each in the form that the model takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set, ValuesView

from torch import Tensor
from torch.utils.data import DataLoader

from ohmformer.capture.inputs import Inputs, leaves, size, take
from ohmformer.capture.sample_batch import arrays_as_tensors
from ohmformer.errors import BadInput, given

_REMEDY = "give a tensor, a mapping of arguments, a list of mappings, or a generator of batches"


def input_batches(inputs: Inputs) -> list[Inputs]:
    """Return the batches that a user gave, with arrays as tensors.

    Args:
        inputs: one batch; or a list of mappings, a data loader or a generator, each of whose items is a batch.

    Raises:
        BadInput: there are no inputs, or one batch holds none.
    """
    loaded = isinstance(inputs, (DataLoader, Iterator))
    if loaded:
        inputs = list(inputs)
        if not inputs:
            raise BadInput("calibrate: inputs yields no batch; calibrate needs at least one input")
    mappings = isinstance(inputs, (list, tuple)) and inputs and all(isinstance(batch, Mapping) for batch in inputs)
    several = loaded or mappings
    parts = [arrays_as_tensors(batch) for batch in (inputs if several else [inputs])]
    for number, part in enumerate(parts):
        name = f"inputs[{number}]" if several else "inputs"
        if isinstance(part, (str, bytes, Set, ValuesView)) or not hasattr(part, "__len__"):
            raise BadInput(f"calibrate: {name} is {given(part)}; {_REMEDY}")
        tensors = [value for _, value in leaves(part) if isinstance(value, Tensor) or not _is_plain(value)]
        if not tensors and any(True for _ in leaves(part)):
            path, value = next(leaves(part))
            where = f"{name}[{path!r}]" if path else name
            raise BadInput(f"calibrate: {where} is {given(value)}; {_REMEDY} with tensors")
        if size(part) == 0:
            raise BadInput(f"calibrate: {name} holds no samples; calibrate needs at least one input")
    return parts


def first_inputs(parts: list[Inputs], count: int) -> list[Inputs]:
    """Return the first `count` samples of all batches together, in the same batches."""
    first: list[Inputs] = []
    for part in parts:
        if count <= 0:
            break
        first.append(take(part, slice(0, count)))
        count -= size(part)
    return first


def _is_plain(value: object) -> bool:
    """True if a value holds no samples: numbers, text and None."""
    return value is None or isinstance(value, (str, bytes, int, float, complex)) or not hasattr(value, "__len__")
