"""Reads TOML and JSON files: UTF-8, with or without a byte-order mark.

Pipes, devices and folders are refused before they are opened, since reading a pipe may never end. A file that has not
changed is parsed only once.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
import tomllib
import unicodedata
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any

from ohmformer.errors import BadInput

LARGEST = 16_000_000
"""Maximum size of a TOML or JSON file [bytes]."""
LARGEST_TEXT = 1_000_000_000
"""Maximum size of a file of texts to evaluate [bytes]."""
DEEPEST = 48
"""Maximum nesting depth of tables and lists."""

_LONG_KEY = re.compile(r"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){48}""")
"""A dotted key with 48 parts or more; the time to parse it grows with the square of their number."""
_MARKS = {
    "UTF-32": (b"\xff\xfe\0\0", b"\0\0\xfe\xff"),
    "UTF-16": (b"\xff\xfe", b"\xfe\xff"),
}
"""Encoding -> the byte-order marks with which its files begin. The first that fits is the encoding."""
_MARK = "\ufeff"
"""The byte-order mark as a character."""
_PLACE = re.compile(r"at line (\d+), column (\d+)")
"""Where TOML is not valid, as its parser says."""
_SETTLED = 2.0
"""Age [s] from which a file's modification time is trusted: a later write surely changes it."""


def home_expanded(name: str) -> Path:
    """Expand `~` to the home folder; return the path unchanged if there is no such home."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def read_text(file: Path, most: int = LARGEST) -> str:
    """The text of a file in UTF-8, without its byte-order mark. Ends of lines stay as they are.

    Files of size 0 are not opened: among them are files of the system that never end.

    Args:
        file: path of a regular file.
        most: maximum size [bytes].

    Raises:
        BadInput: there is no such file; it is a folder, pipe or device; it cannot be read; it is too large; or it is
            not UTF-8, begins with two byte-order marks, or holds null characters.
    """
    try:
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(f"{file}: is a folder, pipe or device; give the path of a file")
        if status.st_size > most:
            raise BadInput(f"{file}: has {status.st_size:,} bytes, at most {most:,}; take a smaller file")
        content = Path(file).read_bytes() if status.st_size else b""
    except FileNotFoundError:
        raise BadInput(f"{file}: no such file; check the path") from None
    except (
        OSError,
        ValueError,
    ) as error:  # ValueError: a name with a null character
        raise BadInput(f"{file}: cannot be read ({error}); check the path and its permissions") from None
    encoding = next((name for name, marks in _MARKS.items() if content.startswith(marks)), None)
    if encoding:
        raise BadInput(f"{file}: is text in {encoding}; save it as UTF-8")
    if b"\0" in content:
        kinds = "UTF-16, UTF-32 and binary files"
        raise BadInput(f"{file}: holds null characters, as {kinds} do; save it as text in UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{content[error.start]:02x} at position {error.start}"
        raise BadInput(f"{file}: is not text in UTF-8 ({byte}); save it as text in UTF-8") from None
    if text.startswith(_MARK):
        raise BadInput(f"{file}: begins with two byte-order marks; save it as UTF-8 with one, or without")
    return text


def read_toml(file: Path) -> dict[str, Any]:
    """The content of a TOML file, as a copy that the caller may change.

    Raises:
        BadInput: the file cannot be read, or it is not valid TOML.
    """
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return _toml_of(file)  # raises BadInput with the reason
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev)
    settled = time.time() - status.st_mtime > _SETTLED
    content: dict[str, Any] = copied(_parsed(Path(file).absolute(), stamp)) if settled else _toml_of(file)
    return content


@lru_cache(maxsize=256)
def _parsed(file: Path, stamp: tuple[int, ...]) -> dict[str, Any]:
    return _toml_of(file)


def _toml_of(file: Path) -> dict[str, Any]:
    text = read_text(file)
    if "\r" in text and "\n" not in text:
        raise BadInput(f"{file}: its lines end in carriage returns alone (CR); save it with line feeds (LF or CRLF)")
    try:
        return parse_toml(text)
    except ValueError as error:
        raise BadInput(f"{file}: is not valid TOML ({error}); correct that line{_odd_character(text, error)}") from None


def _odd_character(text: str, error: ValueError) -> str:
    """Name a character outside ASCII at which TOML stops being valid, as the end of a message; "" for others.

    Word processors and web pages write quotes, spaces and marks that TOML does not know, some of them invisible.
    """
    place = _PLACE.search(str(error))
    lines = text.replace("\r\n", "\n").split("\n")
    character = lines[int(place[1]) - 1][int(place[2]) - 1 :][:1] if place and int(place[1]) <= len(lines) else ""
    if not character or character.isascii():
        return ""
    name = unicodedata.name(character, "not assigned").lower()
    return f" (its character U+{ord(character):04X}, {name}, is not part of TOML outside of quotes)"


def parse_toml(text: str) -> dict[str, Any]:
    """The content of a TOML document.

    Raises:
        tomllib.TOMLDecodeError: it is not valid TOML.
        ValueError: it is nested too deeply, or a key has too many parts or a number too many digits.
    """
    if _LONG_KEY.search(text):
        raise ValueError("a key has too many parts")
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError("a number has too many digits") from None
    check_depth(content)
    return content


def read_json(file: Path) -> Any:
    """The content of a JSON file whose numbers are all finite.

    Raises:
        BadInput: the file cannot be read, or it is not valid JSON.
    """
    text = read_text(file)
    try:
        content = json.loads(text, parse_constant=_refuse)
        check_depth(content)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadInput(f"{file}: is not JSON ({reason}); correct it, or make it again") from None
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def check_depth(content: Any) -> None:
    """Refuse tables and lists that are nested too deeply.

    Raises:
        ValueError: they are nested more than `DEEPEST` levels deep.
    """
    level = [content]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _inside(value: Any) -> list[Any]:
    """The tables and lists directly inside a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in inner if isinstance(item, (dict, list))]


def copied(content: Any) -> Any:
    """A deep copy of plain data: tables and lists are copied, other values are not."""
    if isinstance(content, dict):
        return {key: copied(value) for key, value in content.items()}
    return [copied(value) for value in content] if isinstance(content, list) else content


def with_infinities_as_text(value: Any) -> Any:
    """Plain values with infinities as the text "Infinity", since JSON has no infinity."""
    if isinstance(value, float):
        return "Infinity" if value == inf else value
    if isinstance(value, dict):
        return {key: with_infinities_as_text(inner) for key, inner in value.items()}
    return [with_infinities_as_text(inner) for inner in value] if isinstance(value, list) else value
