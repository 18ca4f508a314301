"""Where models and data are named: `bundled:NAME` in a library folder, `python:module:function`, or a prefix of another
kind, such as `hf:`. Free of torch."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ohmformer.catalog import roots
from ohmformer.errors import BadInput, suggest

T = TypeVar("T")
SUFFIX = {"model": ".safetensors", "task": "_test.npz"}
"""Kind of source -> how the name of its file ends."""

FORMS = {
    "model": ("timm:NAME", "hf:NAME-OR-FOLDER", "python:MODULE:FUNCTION"),
    "task": ("imagefolder:FOLDER", "csv:FILE", "text:FILE", "python:MODULE:FUNCTION"),
}
"""Kind of source -> how sources outside the library are written."""

PREFIXES = {kind: tuple(form.split(":")[0] for form in forms) for kind, forms in FORMS.items()}


def split(kind: str, source: str) -> tuple[str, str]:
    """Prefix and rest of a source: ('hf', 'bert-base-uncased').

    Raises:
        BadInput: there is no such prefix, or nothing behind it.
    """
    prefix, _, rest = source.partition(":")
    if prefix not in ("bundled", *PREFIXES[kind]) or not (rest.strip() or prefix == "python"):
        raise BadInput(f"{kind}.source = {source!r}: no such {kind}; {suggest(source, [*bundled(kind), *FORMS[kind]])}")
    return prefix, rest


def existing(kind: str, source: str, *, folder: bool = False) -> Path:
    """The file, or the folder, that a source names after its prefix; `~` is the home folder.

    Raises:
        BadInput: there is none.
    """
    path = Path(split(kind, source)[1]).expanduser()
    if not (path.is_dir() if folder else path.is_file()):
        what = "folder" if folder else "file"
        hint = f"it is a {'file' if folder else 'folder'}" if path.exists() else f"looked in {path.absolute().parent}"
        raise BadInput(f"{kind}.source = {source!r}: there is no such {what} ({hint}); correct the path")
    return path


def bundled(kind: str) -> dict[str, Path]:
    """Source ('bundled:fashion-vit') -> file, for every bundled model or task; user folders first."""
    found: dict[str, Path] = {}
    for root in roots():
        for file in sorted((root / "bundled").glob(f"*{SUFFIX[kind]}")):
            found.setdefault("bundled:" + file.name.removesuffix(SUFFIX[kind]).replace("_", "-"), file)
    return found


def resolve(kind: str, source: str) -> Path | Callable[[], Any]:
    """The file of a bundled source, or the function of a `python:` one.

    Raises:
        BadInput: no such source, module or function.
    """
    if source.startswith("python:"):
        return _function(kind, source)
    known = bundled(kind)
    if source in known:
        return known[source]
    raise BadInput(f"{kind}.source = {source!r}: no such {kind}; {suggest(source, [*known, *FORMS[kind]])}")


def _function(kind: str, source: str) -> Callable[[], Any]:
    where = f"{kind}.source = {source!r}"
    _, module_name, *names = source.split(":")
    if len(names) != 1 or not module_name:
        raise BadInput(f"{where}: write python:MODULE:FUNCTION")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BadInput(f"{where}: importing {module_name} fails ({reason}); mend it, or set PYTHONPATH") from error
    function = getattr(module, names[0], None)
    if not callable(function):
        raise BadInput(f"{where}: {module_name} has no function {names[0]!r}; write one that takes no arguments")
    found: Callable[[], Any] = function
    return found


def call(kind: str, source: str, function: Callable[[], Any], expected: type[T]) -> T:
    """What the function of a `python:` source returns.

    Raises:
        BadInput: it fails, or returns anything else.
    """
    where = f"{kind}.source = {source!r}"
    try:
        found = function()
    except BadInput:
        raise
    except (Exception, SystemExit) as error:
        raise BadInput(f"{where}: fails ({type(error).__name__}: {error}); mend the function") from error
    if not isinstance(found, expected):
        name = f"{expected.__module__}.{expected.__qualname__}"
        raise BadInput(f"{where}: returns {type(found).__name__}; return a {name}")
    return found
