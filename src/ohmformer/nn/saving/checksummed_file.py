"""Files of tensors and JSON that are written completely or not at all, and that hold a SHA-256 of their contents."""

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
"""Name of the digest among the metadata."""


def checksummed_metadata(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the header of a safetensors file: metadata as JSON, with a digest of them and of the tensors."""
    return {"format": "pt", "ohmformer": json.dumps({**metadata, _KEY: digest(metadata, tensors)}, allow_nan=False)}


def digest(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of metadata, and of names, types, shapes and values of tensors in main memory."""
    content = {name: value for name, value in metadata.items() if name != _KEY}
    sha = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(tensors):
        t = tensors[name].contiguous()
        sha.update(json.dumps([name, str(t.dtype), list(t.shape)]).encode())
        sha.update(t.reshape(-1).view(torch.uint8).numpy().data if t.numel() else b"")
    return sha.hexdigest()


def infinities_as_text(value: Any) -> Any:
    """Return plain values with infinities as text, since JSON has no infinity."""
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: infinities_as_text(inner) for key, inner in value.items()}
    return [infinities_as_text(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def text_as_infinities(value: Any) -> Any:
    """Return plain values with infinities as numbers: the inverse of `infinities_as_text`."""
    if isinstance(value, str):
        return {"Infinity": math.inf, "-Infinity": -math.inf}.get(value, value)
    if isinstance(value, Mapping):
        return {key: text_as_infinities(inner) for key, inner in value.items()}
    return [text_as_infinities(inner) for inner in value] if isinstance(value, (list, tuple)) else value


@contextmanager
def replace_when_done(file: str | Path) -> Iterator[Path]:
    """Context with the path of a new file, which replaces another when the context ends without an error.

    A symbolic link stays, and its target is replaced.

    Raises:
        OSError: the path holds something else than a file, or cannot be written.
    """
    target = Path(os.path.realpath(file))
    if os.path.exists(target) and not os.path.isfile(target):
        raise OSError("it is not a regular file")
    new = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        yield new
        os.replace(new, target)
    finally:
        new.unlink(missing_ok=True)


def read_checksummed(file: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the metadata and the tensors of a file that `save` wrote; the caller checks the digest.

    Raises:
        BadInput: `save` did not write the file.
    """
    if not os.path.isfile(file):
        reason = "is not a regular file" if os.path.exists(file) else "does not exist, or its folder may not be entered"
        raise BadInput(f"{file}: {reason}; give the file that save() wrote")
    try:
        with safe_open(file, framework="pt") as content:
            metadata = json.loads((content.metadata() or {})["ohmformer"])
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise BadInput(f"{file}: is not a converted model ({error}); give the file that save() wrote") from error
    if not isinstance(metadata, dict):
        raise BadInput(
            f"{file}: is not a converted model (its metadata are not a JSON object); give the file that save() wrote"
        )
    return metadata, tensors


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors no two of which share memory, which a file cannot hold."""
    found: dict[str, Tensor] = {}
    held: set[int] = set()
    for name, t in tensors.items():
        memory = t.untyped_storage().data_ptr()
        found[name] = t.clone() if memory in held else t
        held.add(memory)
    return found
