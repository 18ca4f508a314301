"""Tells from an exception whether memory is full: each library says it in its own words."""

from __future__ import annotations

MEMORY = (
    *("can't allocate memory", "cannot allocate memory", "out of memory", "not enough memory", "unable to allocate"),
    *("bad_alloc", "failed to map segment"),
)
"""What systems and libraries say, in small letters, where memory is full."""


def lacks_memory(error: BaseException) -> bool:
    """True if an exception, or one that led to it, says that memory is full."""
    chain: list[BaseException] = []
    while error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__ or error
    return any(isinstance(each, MemoryError) or any(words in str(each).lower() for words in MEMORY) for each in chain)
