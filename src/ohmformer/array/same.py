"""Objects as keys of caches that are asked at every write."""

from __future__ import annotations

from typing import Generic, TypeVar

Object = TypeVar("Object")


class Same(Generic[Object]):
    """A frozen object as the key of a cache, which compares identities: its values would take longer than they save."""

    def __init__(self, value: Object) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value
