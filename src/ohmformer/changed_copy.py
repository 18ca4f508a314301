"""Makes changed copies of specifications, and checks no field again that did not change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)


class Copies:
    """The copies that one set of changes has made.

    What several fields share, such as one array of two engines, is changed once, and its copy is shared again.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[int, int], tuple[object, object, Any]] = {}

    def of(self, spec: M, changes: object, make: Callable[[], M]) -> M:
        """The copy of a specification with some changes.

        Args:
            spec: the specification, compared by identity.
            changes: the changes, compared by identity.
            make: makes the copy; called once for each pair of the two.
        """
        key = (id(spec), id(changes))
        if key not in self._found:
            self._found[key] = (spec, changes, make())  # both are kept, so that their identities stay taken
        copy: M = self._found[key][2]
        return copy


def with_values(spec: M, values: Mapping[str, Any]) -> M:
    """A copy of a specification with new values of some fields.

    A class that checks its fields together after each by itself runs those checks alone; the values of all other
    fields were checked when `spec` was made. A class with validators of any other kind is validated as a whole.

    Args:
        spec: the specification.
        values: field -> its new value, checked against the constraints of the field.

    Raises:
        ValueError: the values do not fit together; pydantic's error, with the reason.
    """
    cls = type(spec)
    checks = _checks_of_all_fields(cls)
    if checks is not None:
        copy = spec.model_copy(update=dict(values))
        if len(copy.__dict__) > len(cls.model_fields):  # it holds what was computed from the old values
            for name in copy.__dict__.keys() - cls.model_fields.keys():
                del copy.__dict__[name]
        try:
            for check in checks:
                check(copy)
        except ValueError:
            pass  # pydantic tells it below, as it tells the errors of a file
        else:
            return copy
    return cls.model_validate({name: getattr(spec, name) for name in cls.model_fields} | dict(values))


@cache
def _checks_of_all_fields(cls: type[BaseModel]) -> tuple[Callable[[Any], object], ...] | None:
    """The validators that check the fields of a class together; None if it has validators of other kinds.

    The validator of the base class, which reads files, is no other kind: it leaves checked values as they are.
    """
    known = cls.__pydantic_decorators__
    if known.field_validators or known.validators or known.root_validators:
        return None
    own = [each for name, each in known.model_validators.items() if name != "_read"]
    return tuple(each.func for each in own) if all(each.info.mode == "after" for each in own) else None
