"""The base of every specification: frozen, strict, and with errors that a reader can act on.

In files a quantity carries its unit ("10 uS") and, in a library, its source; in code it is an SI float. A field that
is itself a specification may be written as a table, as the name of a library entry, or as a table that starts from an
entry (`base = "name"`) and changes keys of it, dotted or as tables of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from math import inf
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from ohmformer import catalog
from ohmformer.errors import BadInput, Misplaced, fault_of, members, models, shown, suggest

Kind = Literal["published", "derived", "reconstructed", "assumed", "user"]
T = TypeVar("T", bound="Spec")

LONGEST_CHAIN = 32
"""Files that start from one another at most."""

_loading: ContextVar[tuple[Path, ...]] = ContextVar("loading", default=())
"""Library files that are being read, each because the one before it names it."""


class Source(BaseModel):
    """Where a value comes from: citation key in sources.bib, place in it, how it was derived, and how sure it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    source: str = ""
    where: str = ""
    how: str = ""
    kind: Kind = "published"


Provenance = tuple[tuple[str, Source], ...]


class Spec(BaseModel):
    """Base of all specifications. Values are immutable; `replace` makes a changed copy.

    Two specifications are equal when their values are: where the values come from does not matter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_inf_nan="strings")
    catalog_kind: ClassVar[str] = ""
    cost_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that say what a thing costs, and nothing of what it computes."""
    aliases: ClassVar[dict[str, tuple[str, ...]]] = {}
    """A path component that stands for several fields: `attention.array` sets key.array and value.array."""

    provenance: SkipJsonSchema[Provenance] = Field(default=(), exclude=True, repr=False)
    """Sources of the values that were given: (field, source), sorted."""

    def __init__(self, /, **data: Any) -> None:
        """Check the values.

        Raises:
            BadInput: one of them does not fit; one line with field, value and remedy.
        """
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise BadInput(f"{type(self).__name__}: {fault_of(error, type(self), data)}") from None

    # Nested tables are then made without a call of this __init__, so that errors keep their path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in _fields(type(self)))

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, data: Any, handler: Callable[[Any], Self], info: ValidationInfo) -> Self:
        context = info.context or {}
        if isinstance(data, str) and cls.catalog_kind:
            return _entry(cls, data, context)
        if not isinstance(data, dict):
            return handler(data)
        if cls.catalog_kind and "base" in data:
            if not isinstance(data["base"], str):
                reason = f"must be the name of a library {cls.catalog_kind}; write it in quotes"
                raise Misplaced(("base",), data["base"], reason)
            try:
                spec = _entry(cls, data["base"], context)
            except ValueError as error:
                raise Misplaced(("base",), data["base"], str(error)) from None
            changes = _Changes.of({key: value for key, value in data.items() if key != "base"})
            return _changed(spec, changes, {**context, "merge": True})
        return handler(cls._unwrap(cls._expand(data)))

    @classmethod
    def _expand(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Spell out shorthands of a table; a specification that has some overrides this."""
        return data

    @classmethod
    def _unwrap(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Take `{ value = ..., source = ... }` apart, and refuse unknown keys by name."""
        fields = _fields(cls)
        plain: dict[str, Any] = {}
        given = data.get("provenance")
        sources = dict(given) if isinstance(given, tuple) else {}
        for key, value in data.items():
            if key == "provenance" and isinstance(given, tuple):
                continue
            if key not in fields:
                raise Misplaced((key,), None, f"is no key here; {suggest(key, [*fields, *cls.aliases])}")
            if _has_source(cls, key, value):
                sources[key] = _source({k: v for k, v in value.items() if k != "value"}, key)
                value = value["value"]
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                sources.setdefault(key, Source(kind="user"))
            plain[key] = value
        return {**plain, "provenance": _sorted(sources)}

    def canonical(self) -> dict[str, Any]:
        """All that decides an answer, as plain JSON values in SI units (sources left out)."""
        found: dict[str, Any] = _finite(self.model_dump(mode="json"))
        return found

    def physical(self) -> dict[str, Any]:
        """`canonical` without what things cost: all that decides what is computed."""
        left_out: dict[str, Any] = {}
        for name in _fields(type(self)):
            value = getattr(self, name)
            if name in self.cost_fields:
                continue
            left_out[name] = value.physical() if isinstance(value, Spec) else self._plain(name)
        return left_out

    def _plain(self, name: str) -> Any:
        return _finite(self.model_dump(mode="json", include={name})[name])


def _finite(value: Any) -> Any:
    """Plain values with infinities as text, since JSON has none."""
    if isinstance(value, float):
        return "Infinity" if value == inf else value
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list) else value


@cache
def _fields(cls: type[Spec]) -> tuple[str, ...]:
    return tuple(name for name in cls.model_fields if name != "provenance")


def _has_source(cls: type[Spec], key: str, value: Any) -> bool:
    """Whether a field is written as `{ value = ..., source = ... }`, and not as a table that has a key `value`."""
    if not isinstance(value, dict) or "value" not in value:
        return False
    return not any("value" in model.model_fields for model in models(cls.model_fields[key].annotation))


def _sorted(sources: Mapping[str, Source]) -> Provenance:
    return tuple(sorted(sources.items(), key=itemgetter(0)))


def _source(marks: dict[str, Any], key: str) -> Source:
    marks.setdefault("kind", "derived" if "how" in marks else "published" if "source" in marks else "user")
    try:
        return Source.model_validate(marks)
    except ValidationError as error:
        raise fault_of(error, Source, marks).below(key) from None


def _entry(cls: type[T], name: str, context: Mapping[str, Any]) -> T:
    """The library entry that a file or a caller names.

    Raises:
        ValueError: there is none, or it is one of those being read.
    """
    file = catalog.locate(cls.catalog_kind, name, beside=context.get("folder"))
    chain = _loading.get()
    if len(chain) >= LONGEST_CHAIN:
        raise ValueError(f"is one of more than {LONGEST_CHAIN} files that start from one another; join some of them")
    if file.resolve() in chain:
        names = [path.stem for path in chain[chain.index(file.resolve()) :]]
        raise ValueError(f"leads back to itself ({' -> '.join([*names, names[0]])}); start from another entry")
    return _load(cls, file)


def _load(cls: type[T], file: Path) -> T:
    return _shipped(cls, file) if catalog.is_shipped_alone(file) else _read_entry(cls, file)


@cache
def _shipped(cls: type[T], file: Path) -> T:
    """An entry of the package, which starts from others of the package alone: read once."""
    return _read_entry(cls, file)


def _read_entry(cls: type[T], file: Path) -> T:
    token = _loading.set((*_loading.get(), file.resolve()))
    try:
        data = catalog.read_table(cls.catalog_kind, file)
        return validate(cls, data, where=str(file), top=cls.catalog_kind, folder=file.parent)
    finally:
        _loading.reset(token)


def load(cls: type[T], name: str) -> T:
    """The library entry (or .toml file) of this name, as `cls`.

    Raises:
        BadInput: one line with the file, the field, its value and the remedy.
    """
    return _load(cls, catalog.find(cls.catalog_kind, name))


def validate(
    cls: type[T], data: Any, *, where: str, in_file: bool = True, top: str = "", folder: Path | None = None
) -> T:
    """Make a specification from plain data.

    Args:
        cls: the specification.
        data: its table.
        where: what errors name first, such as the file.
        in_file: whether quantities need units.
        top: dotted path of the table within the file.
        folder: where relative paths of library files start, besides the working directory.

    Raises:
        BadInput: one line with the place, the field, its value and the remedy.
    """
    try:
        return cls.model_validate(data, context={"file": in_file, "folder": folder})
    except ValidationError as error:
        fault = fault_of(error, cls, data)
        place = f"{where}: " if where else ""
        raise BadInput(f"{place}{fault.below(*top.split('.')) if top else fault}") from None


def replace(spec: T, path: str, value: Any, *, in_file: bool = False) -> T:
    """A copy of the specification with the field at a dotted path changed.

    Quantities are SI floats or strings with a unit; from files only the latter. A new `kind` keeps the fields that both
    kinds have.

    Raises:
        BadInput: no such field, or a value that does not fit.
    """
    try:
        return _changed(spec, _Changes.of({path: value}), {"file": in_file})
    except Misplaced as fault:
        raise BadInput(str(fault)) from None


class _Changes(dict[str, Any]):
    """Keys of a specification to change; what is no `_Changes` itself is set as a whole."""

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> _Changes:
        """Dotted keys, taken apart."""
        changes = cls()
        for path, value in table.items():
            *parents, last = path.split(".")
            level = changes
            for parent in parents:
                if not isinstance(level.get(parent), cls):
                    level[parent] = cls.of(level[parent]) if isinstance(level.get(parent), dict) else cls()
                level = level[parent]
            level[last] = value
        return changes

    def only(self) -> tuple[tuple[str, ...], Any]:
        """Path and value of the one change; () where there are several."""
        if len(self) != 1:
            return (), None
        ((key, value),) = self.items()
        keys, last = value.only() if isinstance(value, _Changes) else ((), value)
        return ((key, *keys), last) if keys or not isinstance(value, _Changes) else ((), None)


def _changed(spec: T, changes: _Changes, context: Mapping[str, Any]) -> T:
    """A copy with all the changes at once: it is checked when all of them are made.

    Raises:
        Misplaced: one does not fit; with the path from `spec` on.
    """
    cls = type(spec)
    values = {name: getattr(spec, name) for name in _fields(cls)}
    sources = dict(spec.provenance)
    for head, value in changes.items():
        for target in cls.aliases.get(head, (head,)):
            keys = tuple(target.split("."))
            inner = _Changes.of({".".join(keys[1:]): value}) if len(keys) > 1 else value
            try:
                values[keys[0]] = _new_value(spec, keys[0], values.get(keys[0]), inner, context)
            except Misplaced as fault:
                raise fault.moved(keys, (head,)) from None
        if head in values and not isinstance(value, _Changes):
            sources[head] = dict(cls._unwrap({head: value})["provenance"]).get(head, Source(kind="user"))
    try:
        return cls.model_validate({**values, "provenance": _sorted(sources)})
    except ValidationError as error:
        raise Misplaced(*changes.only(), fault_of(error, cls, {}).reason) from None


def _new_value(spec: Spec, name: str, old: Any, new: Any, context: Mapping[str, Any]) -> Any:
    """The value of a field after a change of it, or of what it holds."""
    cls = type(spec)
    if name not in _fields(cls):
        raise Misplaced((name,), None, f"is no key here; {suggest(name, [*_fields(cls), *cls.aliases])}")
    plain = isinstance(new, dict) and not isinstance(new, _Changes) and "base" not in new
    if plain and context.get("merge") and isinstance(old, Spec):
        new = dict(new) if _changes_kind(old, new) else _Changes.of(new)
    if not isinstance(new, _Changes):
        new = new if isinstance(new, Spec) else cls._unwrap({name: new})[name]
        return _checked(cls, name, new, context)
    if not isinstance(old, Spec):
        raise Misplaced((name,), None, "has no keys of its own; set it as a whole")
    try:
        if not _changes_kind(old, new):
            return _changed(old, new, context)
        table = _other_kind(members(cls, name), old, new, context)
    except Misplaced as fault:
        raise fault.below(name) from None
    return _checked(cls, name, table, {})


def _changes_kind(old: Spec, new: Mapping[str, Any]) -> bool:
    return "kind" in _fields(type(old)) and new.get("kind", getattr(old, "kind")) != getattr(old, "kind")  # noqa: B009


def _checked(cls: type[Spec], name: str, value: Any, context: Mapping[str, Any]) -> Any:
    """The value of one field, checked with all its constraints."""
    try:
        return _adapter(cls, name).validate_python(value, strict=True, context=dict(context))
    except ValidationError as error:
        raise fault_of(error, cls.model_fields[name].annotation, value).below(name) from None


@cache
def _adapter(cls: type[Spec], name: str) -> TypeAdapter[Any]:
    field = cls.model_fields[name]
    annotation: Any = Annotated[field.annotation, field]
    return TypeAdapter(annotation)


def _other_kind(
    known: Mapping[str, type[Spec]], old: Spec, changes: _Changes, context: Mapping[str, Any]
) -> dict[str, Any]:
    """The table of another kind of the same field: the values that both kinds have, and the changes."""
    kind = changes["kind"]
    if not isinstance(kind, str) or kind not in known:
        raise Misplaced(("kind",), kind, f"is no kind; {suggest(shown(kind), list(known))}")
    new = known[kind]
    given = new._unwrap(changes)
    shared = [key for key in _fields(new) if key in _fields(type(old)) and key not in changes]
    sources = {key: source for key, source in old.provenance if key in shared} | dict(given.pop("provenance"))
    checked = {key: _checked(new, key, value, context) for key, value in given.items()}
    return {**{key: getattr(old, key) for key in shared}, **checked, "provenance": _sorted(sources)}


def walk(spec: Spec, prefix: str = "") -> Iterator[tuple[str, Any, Source | None]]:
    """Every leaf of a specification: dotted path, value, source (None: a default, or a choice without a source)."""
    sources = dict(spec.provenance)
    for name in _fields(type(spec)):
        value = getattr(spec, name)
        if isinstance(value, Spec):
            yield from walk(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, sources.get(name)
