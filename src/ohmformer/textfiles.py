"""Reads TOML and JSON files that people write: UTF-8, with or without a byte-order mark.

What is no regular file is refused before it is opened, since reading a pipe may wait for ever. A file that has not
changed is parsed once.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

from ohmformer.errors import BadInput

LARGEST = 16_000_000
"""Bytes of a TOML or JSON file at most."""
DEEPEST = 48
"""Tables and lists within each other at most."""

_LONG_KEY = re.compile(r"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){48}""")
"""A dotted key of so many parts that the time to read it grows with their square."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SETTLED = 2.0
"""Seconds after which a file that is written again surely has another time of change."""


def read_text(file: Path, most: int = LARGEST) -> str:
    """The text of a file in UTF-8, without its byte-order mark.

    Args:
        file: a regular file.
        most: bytes that it may have.

    Raises:
        BadInput: there is none, it is a folder, pipe or device, it cannot be read, it is too large, or its text is in
            another encoding.
    """
    try:
        found = os.stat(file)
        if not stat.S_ISREG(found.st_mode):
            raise BadInput(f"{file}: is a folder, pipe or device; give the path of a file")
        if found.st_size > most:
            raise BadInput(f"{file}: has {found.st_size:,} bytes, at most {most:,}; take a smaller file")
        content = Path(file).read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{file}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise BadInput(f"{file}: cannot be read ({error}); check the path and its permissions") from None
    if content[:2] in _UTF16:
        raise BadInput(f"{file}: is text in UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: cannot be read ({error}); save it as text in UTF-8") from None


def read_toml(file: Path) -> dict[str, Any]:
    """The content of a TOML file; the caller may change it.

    Raises:
        BadInput: the file cannot be read, or is no TOML.
    """
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return _toml_of(file)  # says what is wrong
    stamp = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)
    settled = time.time() - found.st_mtime > _SETTLED
    content: dict[str, Any] = copied(_parsed(Path(file).absolute(), stamp)) if settled else _toml_of(file)
    return content


@lru_cache(maxsize=256)
def _parsed(file: Path, stamp: tuple[int, ...]) -> dict[str, Any]:
    return _toml_of(file)


def _toml_of(file: Path) -> dict[str, Any]:
    text = read_text(file)
    try:
        return parse_toml(text)
    except ValueError as error:
        raise BadInput(f"{file}: is not valid TOML ({error}); correct that line") from None


def parse_toml(text: str) -> dict[str, Any]:
    """The content of a TOML document.

    Raises:
        tomllib.TOMLDecodeError: it is no TOML.
        ValueError: it is TOML, but nested too deeply or with a number of too many digits.
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
    """The content of a JSON file, of finite numbers alone.

    Raises:
        BadInput: the file cannot be read, or is no JSON.
    """
    text = read_text(file)
    try:
        content = json.loads(text, parse_constant=_refuse)
        check_depth(content)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadInput(f"{file}: is no JSON ({reason}); correct it, or make it again") from None
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def check_depth(content: Any) -> None:
    """Refuse tables and lists that are nested too deeply.

    Raises:
        ValueError: they are.
    """
    level = [content]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _inside(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for each in inner if isinstance(each, (dict, list))]


def copied(content: Any) -> Any:
    """A copy of plain data, of its tables and lists."""
    if isinstance(content, dict):
        return {key: copied(value) for key, value in content.items()}
    return [copied(value) for value in content] if isinstance(content, list) else content
