"""Sources of models and data: `bundled:NAME` in a library folder, and other prefixes such as `hf:`. Free of torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from ohmformer.catalog import roots
from ohmformer.errors import BadInput, shown, suggest
from ohmformer.textfiles import home_expanded

MAX_MESSAGE = 200
"""Maximum number of characters that are repeated from another library's message."""

SUFFIXES = {"model": (".safetensors",), "task": ("_test.npz", ".txt")}
"""Kind of source -> suffixes of its bundled files."""

PACKAGE = "package:"
"""What a path in an installed package of Python begins with, behind the prefix of its source."""

FORMS = {
    "model": ("timm:NAME", "hf:NAME-OR-FOLDER", "hf:package:NAME/PATH", "python:MODULE:FUNCTION"),
    "task": ("imagefolder:FOLDER", "csv:FILE", "text:FILE", "python:MODULE:FUNCTION"),
}
"""Kind of source -> forms of sources outside the library."""

PREFIXES = {kind: tuple(form.split(":")[0] for form in forms) for kind, forms in FORMS.items()}
"""Kind of source -> prefixes of sources outside the library."""


def split(kind: str, source: str, also: Sequence[str] = ()) -> tuple[str, str]:
    """Split a source into its prefix and the rest, such as 'hf' and 'bert-base-uncased'.

    Args:
        kind: `model` or `task`.
        source: the source.
        also: further sources that the caller accepts, for the message.

    Raises:
        BadInput: the prefix is unknown, or nothing follows it.
    """
    prefix, _, rest = source.partition(":")
    if prefix not in ("bundled", *PREFIXES[kind]) or not (rest.strip() or prefix == "python"):
        raise _unknown(kind, source, also)
    return prefix, rest


def task_reader(source: str) -> str:
    """Return the prefix of the reader of a task: that of its source, and `text` for a bundled text.

    Raises:
        BadInput: there is no such source.
    """
    prefix, _ = split("task", source)
    is_text = prefix == "bundled" and bundled_file("task", source).suffix == ".txt"
    return "text" if is_text else prefix


def _unknown(kind: str, source: str, also: Sequence[str]) -> BadInput:
    known = [*bundled(kind), *FORMS[kind], *also]
    return BadInput(f"{kind}.source = {shown(source)}: no such {kind}; {suggest(source, known)}")


def existing(kind: str, source: str, *, folder: bool = False) -> Path:
    """Return the path of the file, or folder, that a source names after its prefix; `~` is the home folder.

    Raises:
        BadInput: it does not exist, is neither a regular file nor a folder, such as a named pipe, or is an empty file.
    """
    path = home_expanded(split(kind, source)[1])
    if not (is_folder(path) if folder else is_file(path)):
        what = "folder" if folder else "file"
        raise BadInput(f"{kind}.source = {shown(source)}: there is no such {what} ({_actual(path)}); correct the path")
    if not folder and path.stat().st_size == 0:
        raise BadInput(f"{kind}.source = {shown(source)}: the file is empty; take another one")
    return path


def in_package(where: str, name: str) -> Path:
    """Return the path of a file or folder in an installed package, which is not imported.

    Args:
        where: beginning of messages.
        name: `PACKAGE/PATH`; what `import` calls the package, and the path below its folder.

    Raises:
        BadInput: there is no such package, or it holds nothing at that path.
    """
    package, _, inside = name.partition("/")
    if not package.isidentifier() or not inside:
        raise BadInput(f"{where}: names no file of a package; write package:NAME/PATH, with the name that is imported")
    found = importlib.util.find_spec(package)
    folders = list(found.submodule_search_locations or ()) if found else []
    if not folders:
        remedy = f"pip install {package.replace('_', '-')}, if it is called so there"
        raise BadInput(f"{where}: the package {package} is not installed; {remedy}")
    path = Path(folders[0]) / inside
    if not (is_file(path) or is_folder(path)):
        raise BadInput(f"{where}: the package {package} holds no {shown(inside)}; correct the path")
    return path


def _actual(path: Path) -> str:
    """Describe what is at a path."""
    if is_folder(path):
        return "it is a folder"
    if is_file(path):
        return "it is a file"
    try:
        return "it is neither a file nor a folder" if path.exists() else f"looked in {path.absolute().parent}"
    except OSError as error:
        return str(error.strerror)


def is_file(path: Path) -> bool:
    """True for a regular file, or a link to one; False for paths that the system refuses, such as too long a name."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """True for a folder, or a link to one; False for paths that the system refuses."""
    try:
        return path.is_dir()
    except OSError:
        return False


def first_line(error: BaseException) -> str:
    """Return type and first line of an exception (two lines if the first ends in a colon), at most 200 characters."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:
        lines = []
    message = " ".join(" ".join(lines[: 2 if lines and lines[0].rstrip().endswith(":") else 1]).split())
    message = message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]}..."
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def is_failure(error: BaseException) -> bool:
    """True for errors of other libraries, also of those in Rust, whose panics are no `Exception`."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def bundled(kind: str) -> dict[str, Path]:
    """Return source ('bundled:fashion-vit') -> file of every bundled model or task; user folders take precedence."""
    files: dict[str, Path] = {}
    for root in roots():
        for suffix in SUFFIXES[kind]:
            for file in sorted((root / "bundled").glob(f"*{suffix}")):
                if is_file(file):
                    files.setdefault("bundled:" + file.name.removesuffix(suffix).replace("_", "-"), file)
    return files


def bundled_file(kind: str, source: str, also: Sequence[str] = ()) -> Path:
    """Return the file of a bundled source; `also` as in `split`.

    Raises:
        BadInput: there is no such source.
    """
    known = bundled(kind)
    if source in known:
        return known[source]
    raise _unknown(kind, source, also)
