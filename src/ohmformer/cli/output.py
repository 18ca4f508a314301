"""Where the output of a verb goes: standard output, standard error, files and folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohmformer.errors import BadInput
from ohmformer.terminal.files import check_file, is_standard_output, write_text

if TYPE_CHECKING:
    from ohmformer.study.results.spec import Document


def results_folder(out: str | None, name: str) -> Path:
    """The folder of a study's results: that of `--out`, or the default one for the study's name.

    Raises:
        BadInput: `--out` is empty.
    """
    from ohmformer.study.results.folder import default_folder

    if out is not None and not out.strip():
        raise BadInput("--out: is empty; give the path of a folder, or leave the option out")
    return default_folder(name) if out is None else Path(out)


def check_writable(file: str | None, option: str = "--json") -> None:
    """Refuse before anything is computed a file that could not be written afterward.

    Raises:
        BadInput: the file of the option cannot be written.
    """
    if file is not None:
        check_file(option, file)


def goes_to_stdout(file: str | None) -> bool:
    """True if the file of an option is standard output; what people read then goes to standard error."""
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


def show(content: Any, *, to_stderr: bool = False) -> None:
    """Print a table or a sentence."""
    from ohmformer.terminal.console import show

    show(content, to_stderr=to_stderr)


def tell(line: str) -> None:
    """Write one line on standard error."""
    from ohmformer.terminal.console import tell

    tell(line)
