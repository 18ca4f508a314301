"""The command line: all verbs, and the exit code of the program."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ohmformer.cli.cost_verbs import compare, cost, serve
from ohmformer.cli.demo.verb import demo
from ohmformer.cli.device_verbs import device
from ohmformer.cli.export_verb import export
from ohmformer.cli.library_verbs import cite, list_entries, schema, show_entry
from ohmformer.cli.output import show, tell
from ohmformer.cli.report_verb import report
from ohmformer.cli.search_verb import search
from ohmformer.cli.stopping import Verbs, stopping
from ohmformer.cli.study_verbs import accuracy, run
from ohmformer.cli.validate_verb import validate
from ohmformer.errors import BadInput, shown
from ohmformer.terminal.memory import lacks_memory

NO_NUMBERS = {
    "Input should be a valid integer, unable to parse string as an integer": "not a whole number; give one",
    "Input should be a valid number, unable to parse string as a number": "not a number; give one without a unit",
}
"""Messages of typer -> what is said in their place, after the value."""

app = typer.Typer(
    cls=Verbs,
    name="ohmformer",
    help="Simulate transformers on memristive crossbars: the accuracy they keep, and the cost of the accelerator.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from ohmformer.study.results.key import versions

        show(f"ohmformer {versions()['ohmformer']}")
        raise typer.Exit


VERBS: dict[str, Callable[..., None]] = {
    "demo": demo, "run": run, "accuracy": accuracy, "cost": cost, "serve": serve,
    "compare": compare, "search": search, "report": report, "export": export, "validate": validate,
    "list": list_entries, "show": show_entry, "cite": cite, "schema": schema,
}  # fmt: skip
"""Verb -> its function, in the order of the help."""

for _name, _verb in VERBS.items():
    app.command(_name)(_verb)
app.add_typer(device, name="device")


def main() -> int:
    """Run the command line.

    Returns:
        The exit code: 0 done, 1 a claim is missed, 2 bad input, 128 + n stopped by signal n.
    """
    as_program = sys._getframe(1).f_globals.get("__name__") == "__main__"
    with stopping.watching(ends=as_program):
        try:
            return _exit_code()
        except KeyboardInterrupt:
            return stopping.code


def _exit_code() -> int:
    try:
        code = app(prog_name="ohmformer", standalone_mode=False)
        return stopping.code if stopping.number else code if isinstance(code, int) else 0
    except BadInput as error:
        tell(f"ohmformer: {error}")
        return 2
    except SystemExit as stop:
        if "_OHMFORMER_COMPLETE" in os.environ and not stop.code:  # a shell asked what may follow
            return 0
        return stopping.code if stopping.number else stop.code if isinstance(stop.code, int) and stop.code else 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:  # a page of help
            from ohmformer.terminal.console import unwritten

            return unwritten(error)
        if isinstance(error, (MemoryError, ImportError, OSError, RuntimeError)) and lacks_memory(error):
            tell("ohmformer: memory is full; what is stored stays, so give the command more memory, and run it again")
            return 2
        if not hasattr(error, "format_message"):
            raise
        return _misused(error)


def _given_value(error: Any) -> str:
    """The value that an option could not read, followed by a space; empty if the error does not hold it."""
    if not hasattr(error.__cause__, "errors"):
        return ""
    return f"{shown(error.__cause__.errors()[0]['input'])} "


def _misused(error: Any) -> int:
    """Report a wrong verb or option, which typer found, in one line; without any verb, show the help instead."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    verb = error.ctx.command_path if getattr(error, "ctx", None) else "ohmformer"
    fault = error.format_message().rstrip(".")
    for words, plain in NO_NUMBERS.items():
        fault = fault.replace(words, f"{_given_value(error)}is {plain}")
    tell(f"{verb}: {BadInput(f'{fault[:1].lower()}{fault[1:]}')} (see {verb} --help)")
    return 2
