"""Digests of the files that a model and its data come from, where these files alone say what is loaded."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohmformer.errors import BadInput
from ohmformer.models.sources import PACKAGE, in_package, is_file
from ohmformer.study.results.key import digest
from ohmformer.textfiles import home_expanded, read_json

if TYPE_CHECKING:
    from ohmformer.models.spec import ModelChoice
    from ohmformer.tasks.spec import TaskChoice

BUNDLED = "bundled:"
MODEL_FOLDERS = ("hf:", "timm:local-dir:")
TASK_FILES = ("csv:", "imagefolder:", "text:")

ELSEWHERE = ("file", "_path", "_dir", "auto_map", "backbone", "dataset")
"""Ends of keys of configurations that name files, models or code outside the folder."""

NAMES = ("name_or_path", "_name_or_path")
"""Keys that only tell where a model once came from."""

LARGEST_CONFIGURATION = 1_000_000
"""Size [B] above which a JSON file is a vocabulary or a list of weights, not a configuration."""

LONGEST_PATH = 4096
"""Number of characters above which a text is not a path."""

LARGEST = 2**33
"""Maximum size of all files [B]: reading more takes longer than loading what is needed of them."""


def files_digest(model: ModelChoice, task: TaskChoice | None) -> str | None:
    """SHA-256 over the files of a model and its data, with their names and the installed packages.

    Args:
        model: the model.
        task: the data; None if there are none.

    Returns:
        The digest; None if other files, code or a network may take part, or if a file cannot be read.
    """
    places = _places(model, task)
    if places is None:
        return None
    try:
        files = {str(number): _digests(place) for number, place in enumerate(places)}
    except (OSError, ValueError, RecursionError, BadInput):
        return None
    return digest([files, installed()]) if all(files.values()) else None


def installed() -> list[str]:
    """Names with versions of all packages that are installed, as their folders of metadata have them."""
    found = set[str]()
    for folder in filter(os.path.isdir, sys.path):
        found.update(name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info")))
    return sorted(found)


def _places(model: ModelChoice, task: TaskChoice | None) -> list[Path] | None:
    """Files and folders that decide model and data; None if these are not known."""
    sources = [(model.source, MODEL_FOLDERS), *([(task.source, TASK_FILES)] if task else [])]
    places = []
    for source, known in sources:
        prefix = next((each for each in known if source.startswith(each)), None)
        unknown = prefix is None and not source.startswith(BUNDLED)
        if unknown or source == prefix or source.endswith(".gguf"):  # beside a GGUF file, a tokenizer may be read
            return None
        if prefix is not None:
            places.append(_place(source, source.removeprefix(prefix)))
    if task is not None and task.labels:
        places.append(home_expanded(task.labels))
    return places


def _place(where: str, path: str) -> Path:
    return in_package(where, path.removeprefix(PACKAGE)) if path.startswith(PACKAGE) else home_expanded(path)


def _digests(place: Path) -> list[tuple[str, str]]:
    """Path and SHA-256 of each file; empty if there is none, or a configuration names something elsewhere.

    Raises:
        OSError: a file cannot be read.
    """
    files = [place] if place.is_file() else list(_files(place))
    if sum(file.stat().st_size for file in files) > LARGEST or any(map(_names_others, files)):
        return []
    found = []
    for file in files:
        with open(file, "rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        found.append((os.path.relpath(file, place), sha256))
    return found


def _files(folder: Path) -> Iterator[Path]:
    """All files of a folder and of those below it.

    Raises:
        OSError: one of them is a pipe or a device, or a folder is a link, which may lead in a circle.
    """
    for place, folders, names in os.walk(folder):
        folders.sort()
        entries = [Path(place, name) for name in sorted(names)]
        if any(os.path.islink(os.path.join(place, name)) for name in folders) or not all(map(is_file, entries)):
            raise OSError(f"{place}: holds more than files and folders")
        yield from entries


def _names_others(file: Path) -> bool:
    """True if a configuration may name files, models or code outside its folder."""
    is_list = file.name.endswith(".index.json")
    if file.suffix != ".json" or (file.stat().st_size > LARGEST_CONFIGURATION and not is_list):
        return False
    return any(
        key not in NAMES and (key.endswith(ELSEWHERE) or _leads_out(value, file.parent))
        for key, value in _entries(read_json(file))
    )


def _leads_out(value: Any, folder: Path) -> bool:
    """True if a value is the path of something that exists outside a folder."""
    if not isinstance(value, str) or "/" not in value or len(value) > LONGEST_PATH:
        return False
    place = os.path.realpath(folder / os.path.expanduser(value))
    return os.path.lexists(place) and not place.startswith(os.path.join(os.path.realpath(folder), ""))


def _entries(content: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    """Key and value of everything in tables and lists that is not empty; values of a list have the key of the list."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _entries(value, str(name))
    elif isinstance(content, list):
        for value in content:
            yield from _entries(value, key)
    if content not in (None, "", [], {}):
        yield key, content
