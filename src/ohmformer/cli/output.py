"""Sends the output of a verb to standard output, standard error, files and folders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohmformer.errors import BadInput, shown
from ohmformer.terminal.files import check_apart, check_file, is_standard_output, write_text
from ohmformer.terminal.paths import check_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ohmformer.study.results.spec import Document


def results_folder(out: str | None, name: str) -> Path:
    """The folder of a study's results: that of `--out`, or the default one for the study's name.

    Raises:
        BadInput: there cannot be such a folder, or it holds something else.
    """
    from ohmformer.study.results.folder import default_folder

    if out == "-":
        raise BadInput("--out -: results need a folder; give its path, or write them to standard output with --json -")
    folder = default_folder(name) if out is None else Path(out)
    check_folder("--out" if out is not None else "", folder)
    _check_owner(folder / "results.json", name)
    return folder


def _check_owner(file: Path, name: str) -> None:
    """Refuse a folder whose results are those of another study, or of another program, or no file."""
    if os.path.exists(file) and not os.path.isfile(file):
        raise BadInput(f"{file}: is not a file, so results cannot be written there; move it away")
    if not os.path.isfile(file) or not os.path.getsize(file):
        return
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        owner = content.get("study") if isinstance(content, dict) and "schema" in content else None
    except (OSError, ValueError, RecursionError):
        owner = None
    if owner != name:
        what = (
            f"the results of study {shown(owner)}"
            if isinstance(owner, str)
            else "something that this program did not write"
        )
        raise BadInput(f"{file}: holds {what}; choose another folder with --out, or move it away")


def check_writable(file: str | None, option: str = "--json") -> None:
    """Refuse a file that cannot be written, before anything is computed.

    Raises:
        BadInput: the file of the option cannot be written.
    """
    if file is not None:
        check_file(option, file)


def check_outputs(**files: str | None) -> None:
    """Refuse files that cannot be written, and one file for two options, before anything is computed.

    Args:
        files: option without dashes -> its path; None where it is not given.

    Raises:
        BadInput: one of them cannot be written, or two are the same file.
    """
    for option, file in files.items():
        check_writable(file, f"--{option}")
    check_apart({f"--{option}": file for option, file in files.items()})


def goes_to_stdout(file: str | None) -> bool:
    """True if the file of an option is standard output. Tables then go to standard error."""
    return file is not None and is_standard_output(file)


def write_document(document: Document, file: str | None) -> None:
    """Write a document as JSON to the file of `--json`, if there is one."""
    from ohmformer.study.results.document import to_json

    if file is not None:
        write(to_json(document), file)


def write(text: str, file: str) -> None:
    """Write text to the file of an option, or to standard output."""
    if is_standard_output(file):
        from ohmformer.terminal.console import write_json

        write_json(text)
    else:
        write_text(Path(file), text)


def write_files(folder: Path, texts: Mapping[str, str], save_figures: Callable[[], Sequence[Path]], stored: str) -> str:
    """Write files and figures into a folder, if that may be written.

    Args:
        folder: the folder.
        texts: name -> text of a file.
        save_figures: writes the figures, after the files, and returns their paths.
        stored: name of the file that holds what a later call goes on with, if there is one.

    Returns:
        The sentence that says where they are, or that the folder keeps the files that it has.

    Raises:
        BadInput: a file cannot be written.
    """
    if not os.access(folder, os.W_OK):
        return f"{folder} may not be written: its files stay as they are, and what was computed anew is not stored"
    for name, text in texts.items():
        write(text, str(folder / name))
    there = [stored] if os.path.exists(folder / stored) else []
    return f"written to {folder}: {', '.join([*texts, *there, *(file.name for file in save_figures())])}"


def show(content: Any, *, to_stderr: bool = False) -> None:
    """Print a table or a sentence."""
    from ohmformer.terminal.console import show

    show(content, to_stderr=to_stderr)


def tell(line: str) -> None:
    """Write one line on standard error."""
    from ohmformer.terminal.console import tell

    tell(line)
