"""The one exception for whatever a user can mend: its message is one line that says where, what and how."""

from __future__ import annotations


class BadInput(Exception):
    """Bad input: a file, a field, a model or data that cannot be used as it is.

    It deliberately is no `ValueError`: pydantic lets it pass through nested validation unchanged, so the file and the
    field that it names are those of the innermost document.
    """


def suggest(word: str, known: list[str]) -> str:
    """A remedy for an unknown word: the closest known one, and the list."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(sorted(known))}"
