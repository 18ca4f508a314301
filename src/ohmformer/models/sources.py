"""Where models and data are named: `bundled:NAME` in a library folder, `python:module:function`, or a prefix of another
kind, such as `hf:`. Free of torch."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ohmformer.catalog import roots
from ohmformer.errors import BadInput, suggest

T = TypeVar("T")

SHOWN = 200
"""So many characters of another library's message are repeated."""

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
        BadInput: there is none, or it is neither, such as a named pipe.
    """
    path = home_expanded(split(kind, source)[1])
    if not (is_folder(path) if folder else is_file(path)):
        what = "folder" if folder else "file"
        raise BadInput(f"{kind}.source = {source!r}: there is no such {what} ({_instead(path)}); correct the path")
    return path


def _instead(path: Path) -> str:
    """What is found in place of a file or a folder."""
    if is_folder(path):
        return "it is a folder"
    if is_file(path):
        return "it is a file"
    try:
        return "it is neither a file nor a folder" if path.exists() else f"looked in {path.absolute().parent}"
    except OSError as error:
        return str(error.strerror)


def home_expanded(name: str) -> Path:
    """A path as a user writes it: `~` is the home folder; unchanged where there is no such home."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def is_file(path: Path) -> bool:
    """True for a regular file, or a link to one; False for a path that the system refuses, such as too long a name."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """True for a folder, or a link to one; False for a path that the system refuses."""
    try:
        return path.is_dir()
    except OSError:
        return False


def first_line(error: BaseException) -> str:
    """Type and first line of an exception (two, where the first ends in a colon), at most 200 characters."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:
        lines = []
    said = " ".join(" ".join(lines[: 2 if lines and lines[0].rstrip().endswith(":") else 1]).split())
    said = said if len(said) <= SHOWN else f"{said[:SHOWN]}..."
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def bundled(kind: str) -> dict[str, Path]:
    """Source ('bundled:fashion-vit') -> file, for every bundled model or task; user folders first."""
    found: dict[str, Path] = {}
    for root in roots():
        for file in sorted((root / "bundled").glob(f"*{SUFFIX[kind]}")):
            if not is_file(file):
                continue
            found.setdefault("bundled:" + file.name.removesuffix(SUFFIX[kind]).replace("_", "-"), file)
    return found


def bundled_file(kind: str, source: str) -> Path:
    """The file of a bundled source.

    Raises:
        BadInput: there is no such source.
    """
    known = bundled(kind)
    if source in known:
        return known[source]
    raise BadInput(f"{kind}.source = {source!r}: no such {kind}; {suggest(source, [*known, *FORMS[kind]])}")


def from_python(kind: str, source: str, expected: type[T]) -> T:
    """What the function of a `python:MODULE:FUNCTION` source returns.

    Every `python:` source, of a model or of a task, is loaded here and nowhere else. It imports MODULE and calls
    FUNCTION, so it runs code: of files below the working directory, and of any module that is installed. Whoever reads
    studies of strangers has to ask for permission before this is called.

    The working directory is the last place where modules are looked for, and only until the function returns.

    Args:
        kind: `model` or `task`, for messages.
        source: as it stands in the study.
        expected: class that the function's result must have.

    Raises:
        BadInput: it is written otherwise, there is no such module or function, it fails, or it returns anything else.
    """
    where = f"{kind}.source = {source!r}"
    _, module_name, *names = source.split(":")
    if len(names) != 1 or not module_name:
        raise BadInput(f"{where}: write python:MODULE:FUNCTION")
    with _working_directory_importable():
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:
            reason = first_line(error)
            raise BadInput(f"{where}: importing {module_name} fails ({reason}); mend it, or set PYTHONPATH") from error
        function = getattr(module, names[0], None)
        if not callable(function):
            raise BadInput(f"{where}: {module_name} has no function {names[0]!r}; write one that takes no arguments")
        try:
            found = function()
        except BadInput:
            raise
        except (Exception, SystemExit) as error:
            raise BadInput(f"{where}: fails ({first_line(error)}); mend the function") from error
    if not isinstance(found, expected):
        name = f"{expected.__module__}.{expected.__qualname__}"
        raise BadInput(f"{where}: returns {type(found).__name__}; return a {name}")
    return found


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """Inside, modules are looked for in the working directory last, as if PYTHONPATH ended with it."""
    try:
        here = os.getcwd()
    except OSError:  # it was removed
        yield
        return
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
