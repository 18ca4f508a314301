"""Writes to standard output and standard error: harmless text, and one line of error if writing fails."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.text import Text

from ohmformer.errors import BadInput
from ohmformer.terminal.plain import clean, one_line

WIDTH = 160
"""Wide enough for any table where the output is not a terminal."""


class _Console(Console):
    """A console that prints no control characters, and no markup."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(clean(text), **options)


def show(content: Any, *, to_stderr: bool = False) -> None:
    """Print a table or a sentence.

    Raises:
        BadInput: the output cannot be written.
    """
    if (sys.stderr if to_stderr else sys.stdout) is None:  # closed by whoever started the command
        return
    console = _Console(stderr=to_stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH
    with _in_one_line("standard error" if to_stderr else "standard output", 2 if to_stderr else 1):
        _encodes_all(sys.stderr if to_stderr else sys.stdout)
        console.print(content)


def write_json(text: str) -> None:
    """Write a JSON text to standard output; characters that its encoding lacks are escaped.

    Raises:
        BadInput: the output is closed or cannot be written.
    """
    if sys.stdout is None:
        raise BadInput("standard output: is closed; name a file with --json")
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text), indent=2) + "\n"
    with _in_one_line("standard output", 1):
        sys.stdout.write(text)
        sys.stdout.flush()


def tell(line: str) -> None:
    """Write one line on standard error, unless it is closed."""
    with suppress(OSError, ValueError, AttributeError):
        _encodes_all(sys.stderr)
        print(one_line(line), file=sys.stderr, flush=True)


def unwritten(error: OSError) -> int:
    """Report that standard output could not be written, and return the exit code."""
    _discard(1)
    tell(f"ohmformer: standard output: cannot be written ({error.strerror}); send it elsewhere")
    return 2


def _encodes_all(stream: Any) -> None:
    """Make an output escape characters that its encoding lacks."""
    if hasattr(stream, "reconfigure") and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")


@contextmanager
def _in_one_line(name: str, number: int) -> Iterator[None]:
    """Raise errors of writing as `BadInput`. If the reader of a pipe has closed it, end the command quietly."""
    try:
        yield
    except BrokenPipeError:
        _discard(number)
        raise SystemExit(1) from None
    except OSError as error:
        _discard(number)
        raise BadInput(f"{name}: cannot be written ({error.strerror}); send it elsewhere") from error


def _discard(number: int) -> None:
    """Send the rest of an output to /dev/null, so that Python reports no further error at exit."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
