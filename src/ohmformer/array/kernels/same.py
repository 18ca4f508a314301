"""An array as a key of caches that are asked in every write."""

from __future__ import annotations

from ohmformer.array.spec import Crossbar


class Same:
    """An array as a key of a cache that compares objects, which are frozen: values would take longer than they save."""

    def __init__(self, array: Crossbar) -> None:
        self.array = array

    def __hash__(self) -> int:
        return id(self.array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.array is other.array
