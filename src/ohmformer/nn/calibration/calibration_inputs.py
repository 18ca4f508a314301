"""The inputs of `calibrate`: one batch, or several batches, each in the form that the model takes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ohmformer.capture.inputs import Inputs, leaves, size, take
from ohmformer.capture.sample_batch import ONE_OR_SEVERAL, arrays_as_tensors, several_batches
from ohmformer.errors import BadInput, given


def input_batches(inputs: Inputs, sample: Any) -> list[Inputs]:
    """Return the batches that a user gave, with arrays as tensors.

    Args:
        inputs: one batch or several, see `several_batches`.
        sample: the sample of the conversion.

    Raises:
        BadInput: there are no inputs, or one batch holds none.
    """
    several = several_batches(inputs, "calibrate: inputs", sample)
    if several is not None and not several:
        raise BadInput("calibrate: inputs yields no batch; calibrate needs at least one input")
    parts = [arrays_as_tensors(batch, "inputs") for batch in ([inputs] if several is None else several)]
    for number, part in enumerate(parts):
        name = "inputs" if several is None else f"inputs[{number}]"
        if isinstance(part, (str, bytes)) or not hasattr(part, "__len__"):
            raise BadInput(f"calibrate: {name} is {given(part)}; {ONE_OR_SEVERAL}")
        tensors = [value for _, value in leaves(part) if isinstance(value, Tensor) or not _is_plain(value)]
        if not tensors and any(True for _ in leaves(part)):
            path, value = next(leaves(part))
            where = f"{name}[{path!r}]" if path else name
            raise BadInput(f"calibrate: {where} is {given(value)}; {ONE_OR_SEVERAL}, of tensors")
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
