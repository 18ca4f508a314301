"""Holds back Python's search for garbage in cycles while many objects are made that all stay.

The search looks at all objects again and again. Where thousands of points are read or written, none of them is garbage,
and the search took up to half of the time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage() -> Iterator[None]:
    """Context without a search for garbage in cycles; it is as before at the end. Objects outside of cycles go at once,
    as always."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
