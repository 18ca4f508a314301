"""The sample batch of a checkpoint as JSON, with its tensors apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def sample_as_json(sample: Any, tensors: dict[str, Tensor], prefix: str) -> Any:
    """Describe a sample batch as JSON, and add its tensors to `tensors`.

    Args:
        sample: a tensor, a number, a text, None, or nested tuples, lists and mappings of these.
        tensors: name -> tensor; it is changed.
        prefix: beginning of the names of the sample's tensors.

    Returns:
        The description; None if the sample holds other kinds of values.
    """
    match sample:
        case Tensor():
            name = f"{prefix}{len(tensors)}"
            tensors[name] = sample.clone()  # in a file no two tensors may share memory
            return {"tensor": name}
        case Mapping():
            if not all(isinstance(name, str) for name in sample):
                return None  # JSON would make texts of other names
            parts = {name: sample_as_json(value, tensors, prefix) for name, value in sample.items()}
            return None if None in parts.values() else {"mapping": parts}
        case tuple() | list():
            items = [sample_as_json(value, tensors, prefix) for value in sample]
            kind = "list" if isinstance(sample, tuple) else "items"
            return None if None in items else {kind: items}
        case float() if not math.isfinite(sample):
            return {"float": str(sample)}  # JSON has no infinity and no NaN
        case bool() | int() | float() | str() | None:
            return {"value": sample}
    return None


def sample_from_json(described: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the sample batch of its description: the inverse of `sample_as_json`.

    Key "list" holds a tuple, as in files of former versions; "items" holds a list.
    """
    match described:
        case {"tensor": name}:
            return tensors[name]
        case {"mapping": parts}:
            return {name: sample_from_json(part, tensors) for name, part in parts.items()}
        case {"list": items}:
            return tuple(sample_from_json(item, tensors) for item in items)
        case {"items": items}:
            return [sample_from_json(item, tensors) for item in items]
        case {"float": "inf" | "-inf" | "nan" as text}:
            return float(text)
        case {"value": value}:
            return value
    return None


def tensor_names(described: Any) -> set[str]:
    """Return the names of the tensors in the description of a sample."""
    match described:
        case {"tensor": str(name)}:
            return {name}
        case {"mapping": dict(parts)}:
            return set().union(*(tensor_names(part) for part in parts.values()))
        case {"list": list(items)} | {"items": list(items)}:
            return set().union(*(tensor_names(item) for item in items))
    return set()
