"""Files of tensors and JSON that are written whole or not at all, and that carry a SHA-256 of what they hold."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ohmformer.errors import BadInput

_KEY = "sha256"


def signed(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The metadata of a safetensors file: plain values as JSON, with a digest of them and of the tensors."""
    return {"format": "pt", "ohmformer": json.dumps({**about, _KEY: digest(about, tensors)}, allow_nan=False)}


def digest(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over plain values, and over names, types, shapes and values of tensors in main memory."""
    kept = {name: value for name, value in about.items() if name != _KEY}
    found = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
    for name in sorted(tensors):
        t = tensors[name].contiguous()
        found.update(json.dumps([name, str(t.dtype), list(t.shape)]).encode())
        found.update(t.reshape(-1).view(torch.uint8).numpy().data if t.numel() else b"")
    return found.hexdigest()


def finite(value: Any) -> Any:
    """Plain values with infinities as text, since JSON has none."""
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def unbounded(value: Any) -> Any:
    """The inverse of `finite`."""
    if isinstance(value, str):
        return {"Infinity": math.inf, "-Infinity": -math.inf}.get(value, value)
    if isinstance(value, Mapping):
        return {key: unbounded(inner) for key, inner in value.items()}
    return [unbounded(inner) for inner in value] if isinstance(value, (list, tuple)) else value


@contextmanager
def replacing(file: str | Path) -> Iterator[Path]:
    """A file beside another that takes its place when the block is done; links stay links.

    Raises:
        OSError: the place holds something else than a file, or cannot be written.
    """
    place = Path(os.path.realpath(file))
    if place.exists() and not place.is_file():
        raise OSError("it is no regular file")
    new = place.with_name(f"{place.name}.{os.getpid()}.part")
    try:
        yield new
        os.replace(new, place)
    finally:
        new.unlink(missing_ok=True)


def read_signed(file: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The plain values and the tensors of a file that `save` wrote; their digest is not looked at yet.

    Raises:
        BadInput: it is no such file.
    """
    if not Path(file).is_file():
        why = "is no regular file" if Path(file).exists() else "does not exist"
        raise BadInput(f"{file}: {why}; give the file that save() wrote")
    try:
        with safe_open(file, framework="pt") as content:
            about = json.loads((content.metadata() or {})["ohmformer"])
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise BadInput(f"{file}: is no converted model ({error}); give the file that save() wrote") from error
    if not isinstance(about, dict):
        raise BadInput(f"{file}: is no converted model (its metadata are no table); give the file that save() wrote")
    return about, tensors
