"""Figures as files, and text that is drawn as it is."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import Any

from matplotlib.figure import Figure

from ohmformer.terminal.files import write_bytes
from ohmformer.terminal.plain import clean


def encoded(figure: Figure, ending: str) -> bytes:
    """A figure in a format, such as `svg` (without a date, so that equal figures are equal files) or `png`."""
    content = BytesIO()
    options: dict[str, Any] = {"metadata": {"Date": None}} if ending == "svg" else {"dpi": 160}
    figure.savefig(content, format=ending, **options)
    return content.getvalue()


def save_svg_and_png(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write NAME.svg and NAME.png into a folder, each whole or not at all. Call it in the style of the figure.

    Raises:
        BadInput: one cannot be written.
    """
    files = {folder / f"{name}.{ending}": encoded(figure, ending) for ending in ("svg", "png")}
    for file, content in files.items():
        write_bytes(file, content)
    return list(files)


def literal(text: str) -> str:
    """Text that is drawn as it is: no mathematics between dollar signs, nothing that SVG cannot hold."""
    return clean(text).replace("$", r"\$")


def literal_lines(text: str, width: int) -> str:
    """Text that is drawn as it is, in lines of at most `width` characters."""
    return "\n".join(map(literal, wrap(clean(text), width)))
