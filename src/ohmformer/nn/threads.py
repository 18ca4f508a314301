"""What each thread that calls a converted model keeps for itself, so that threads may share one model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Values = dict[tuple[str, str], Any]


class Threads:
    """Values by name of the owner and of the attribute, for every thread that has called the whole model.

    Other threads, such as those in which gradients are computed, share the values of the thread that called it last.
    """

    def __init__(self, latest: Values | None = None) -> None:
        self.local = threading.local()
        self.latest: Values = {} if latest is None else latest

    def enter(self) -> None:
        """This thread calls the whole model: from now on it has values of its own."""
        own = getattr(self.local, "values", None)
        if own is None:
            # The first one goes on with what was set before any call.
            own = self.local.values = {} if self.latest.get(("", "owned")) else self.latest
            own["", "owned"] = True
        self.latest = own

    @property
    def here(self) -> Values:
        """The values of this thread."""
        found: Values = getattr(self.local, "values", self.latest)
        return found

    def own(self, name: str, make: Callable[[], T]) -> T:
        """What this thread keeps under a name that no attribute has; made when it is first asked for."""
        values, key = self.here, ("own", name)
        if key not in values:
            values[key] = make()
        found: T = values[key]
        return found

    @property
    def frames(self) -> list[object | None]:
        """What intercepts products in this thread now, innermost last; None where nothing does."""
        try:
            found: list[object | None] = self.local.frames
        except AttributeError:
            found = self.local.frames = []
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies go on where this thread is."""
        return Threads, ({key: value for key, value in self.here.items() if key != ("", "owned")},)


class OfThread(Generic[T]):
    """An attribute of which every thread has its own value; the class has `threads`, and a `name` that no other
    owner of these threads has.

    The default is one object for all threads, so it must be one that nothing changes.
    """

    def __init__(self, default: T) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.attribute = name

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        if instance is None:
            return self.default
        found: T = instance.threads.here.get((instance.name, self.attribute), self.default)
        return found

    def __set__(self, instance: Any, value: T) -> None:
        instance.threads.here[instance.name, self.attribute] = value
