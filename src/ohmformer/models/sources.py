"""Sources of models and data: `bundled:NAME` in a library folder, `python:MODULE:FUNCTION`, and other prefixes such as
`hf:`. Free of torch."""

from __future__ import annotations

import importlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ohmformer.catalog import roots
from ohmformer.errors import BadInput, shown, suggest
from ohmformer.textfiles import home_expanded

T = TypeVar("T")

MAX_MESSAGE = 200
"""Maximum number of characters that are repeated from another library's message."""

SUFFIX = {"model": ".safetensors", "task": "_test.npz"}
"""Kind of source -> suffix of its bundled files."""

FORMS = {
    "model": ("timm:NAME", "hf:NAME-OR-FOLDER", "python:MODULE:FUNCTION"),
    "task": ("imagefolder:FOLDER", "csv:FILE", "text:FILE", "python:MODULE:FUNCTION"),
}
"""Kind of source -> forms of sources outside the library."""

PREFIXES = {kind: tuple(form.split(":")[0] for form in forms) for kind, forms in FORMS.items()}
"""Kind of source -> prefixes of sources outside the library."""


def split(kind: str, source: str) -> tuple[str, str]:
    """Split a source into its prefix and the rest, such as 'hf' and 'bert-base-uncased'.

    Args:
        kind: `model` or `task`.
        source: the source.

    Raises:
        BadInput: the prefix is unknown, or nothing follows it.
    """
    prefix, _, rest = source.partition(":")
    if prefix not in ("bundled", *PREFIXES[kind]) or not (rest.strip() or prefix == "python"):
        raise BadInput(
            f"{kind}.source = {shown(source)}: no such {kind}; {suggest(source, [*bundled(kind), *FORMS[kind]])}"
        )
    return prefix, rest


def existing(kind: str, source: str, *, folder: bool = False) -> Path:
    """Return the path of the file, or folder, that a source names after its prefix; `~` is the home folder.

    Raises:
        BadInput: it does not exist, or is neither a regular file nor a folder, such as a named pipe.
    """
    path = home_expanded(split(kind, source)[1])
    if not (is_folder(path) if folder else is_file(path)):
        what = "folder" if folder else "file"
        raise BadInput(f"{kind}.source = {shown(source)}: there is no such {what} ({_actual(path)}); correct the path")
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


def bundled(kind: str) -> dict[str, Path]:
    """Return source ('bundled:fashion-vit') -> file of every bundled model or task; user folders take precedence."""
    files: dict[str, Path] = {}
    for root in roots():
        for file in sorted((root / "bundled").glob(f"*{SUFFIX[kind]}")):
            if not is_file(file):
                continue
            files.setdefault("bundled:" + file.name.removesuffix(SUFFIX[kind]).replace("_", "-"), file)
    return files


def bundled_file(kind: str, source: str) -> Path:
    """Return the file of a bundled source.

    Raises:
        BadInput: there is no such source.
    """
    known = bundled(kind)
    if source in known:
        return known[source]
    raise BadInput(f"{kind}.source = {shown(source)}: no such {kind}; {suggest(source, [*known, *FORMS[kind]])}")


def from_python(kind: str, source: str, expected: type[T]) -> T:
    """Call the function of a `python:MODULE:FUNCTION` source and return its result.

    Every `python:` source, of a model or of a task, is loaded here and nowhere else. This runs code: MODULE may be a
    file below the working directory, or any installed module. Callers that read untrusted studies must ask for
    permission first.

    Until the function returns, modules are also looked up in the working directory, after all other folders.

    Args:
        kind: `model` or `task`, for messages.
        source: the source, as in the study.
        expected: required class of the result.

    Raises:
        BadInput: the source has another form, the module or function does not exist or fails, or the result has
            another class.
    """
    where = f"{kind}.source = {shown(source)}"
    _, module_name, *names = source.split(":")
    if len(names) != 1 or not module_name:
        raise BadInput(f"{where}: write python:MODULE:FUNCTION")
    with _working_directory_importable(), _process_kept(where):
        try:
            module = importlib.import_module(module_name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            reason = first_line(error)
            raise BadInput(
                f"{where}: importing {module_name} fails ({reason}); correct it, or set PYTHONPATH"
            ) from error
        function = getattr(module, names[0], None)
        if not callable(function):
            raise BadInput(
                f"{where}: {module_name} has no function {shown(names[0])}; write one that takes no arguments"
            )
        try:
            result = function()
        except (BadInput, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise BadInput(f"{where}: fails ({first_line(error)}); correct the function") from error
    if not isinstance(result, expected):
        name = f"{expected.__module__}.{expected.__qualname__}"
        raise BadInput(f"{where}: returns {type(result).__name__}; return a {name}")
    return result


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """Append the working directory to `sys.path` for the duration of the context.

    `sys.path` is global to the process. Appending is safe: no module that was importable before is hidden, and the
    entry is removed on exit.
    """
    try:
        folder = os.getcwd()
    except OSError:  # the working directory was deleted
        yield
        return
    added = folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)


class Exit(SystemExit):
    """Code of the user called `os._exit`, which would end the process without a word."""


@contextmanager
def no_exit() -> Iterator[None]:
    """Make `os._exit` raise `Exit` in this thread while code of the user runs.

    Other threads, such as that by which a worker ends with its driver, and forked copies of the process still exit.
    """
    process, thread, end = os.getpid(), threading.get_ident(), os._exit

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process or threading.get_ident() != thread:
            end(status)
        raise Exit(f"it calls os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = end


@contextmanager
def _process_kept(where: str) -> Iterator[None]:
    """Keep this process as it is while a function of the user is called.

    `os._exit` becomes an exception, a forked copy of this process ends with the context, and the working directory is
    restored.

    Args:
        where: beginning of messages.

    Raises:
        BadInput: the code closes standard output or standard error.
    """
    process, end, outputs = os.getpid(), os._exit, (sys.stdout, sys.stderr)
    folder = None
    with suppress(OSError):
        folder = os.getcwd()
    try:
        with no_exit():
            yield
    finally:
        if os.getpid() != process:
            end(1)
        if folder is not None:
            with suppress(OSError):
                os.chdir(folder)
    sys.stdout, sys.stderr = outputs
    if any(_is_closed(output) for output in outputs):
        sys.stdout = io.StringIO() if _is_closed(sys.stdout) else sys.stdout
        sys.stderr = sys.__stderr__ if _is_closed(sys.stderr) else sys.stderr
        raise BadInput(f"{where}: closes standard output or standard error; remove that from the function")


def _is_closed(output: Any) -> bool:
    return bool(getattr(output, "closed", False))
