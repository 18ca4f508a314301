"""The base of every specification: frozen, strict, with one-line errors that name file, field, value and remedy.

In files, a quantity carries its unit ("10 uS") and, in a library, its source; in code it is an SI float. A field that
holds a specification may be written as a table, as the name of a library entry, or as a table that starts from an entry
(`base = "name"`) and changes some of its keys, which may be dotted keys or nested tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from inspect import signature
from operator import attrgetter
from os.path import realpath
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo, model_validator
from pydantic.json_schema import SkipJsonSchema

from ohmformer import catalog
from ohmformer.changed_copy import Copies, with_values
from ohmformer.errors import BadInput, Misplaced, check_type, fault_of, members, models, suggest
from ohmformer.key_search import unknown_key, with_place
from ohmformer.lost_lines import lost_line
from ohmformer.patch import Patch, expanded, unchangeable
from ohmformer.provenance import Provenance, Source, as_provenance, is_stated, read_source
from ohmformer.textfiles import with_infinities_as_text
from ohmformer.wording import keywords

T = TypeVar("T", bound="Spec")

LONGEST_CHAIN = 32
"""Maximum number of files in a chain in which each starts from the next."""

_USER = Source(kind="user")
"""The source of a number that a user gives without one."""

_loading: ContextVar[tuple[Path, ...]] = ContextVar("loading", default=())
"""The library files that are being read; each is named by the one before it."""


class Spec(BaseModel):
    """Base of all specifications. Values are immutable; `replace` makes a changed copy.

    Two specifications are equal if their values are; sources do not count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_inf_nan="strings")
    catalog_kind: ClassVar[str] = ""
    cost_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that affect costs only, not the numbers that are computed."""
    aliases: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Alias -> the fields that it sets: in `attention`, `array` sets key.array and value.array."""
    shorthands: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Key that files may write -> the fields that `_expand` computes from it."""
    renamed: ClassVar[dict[str, str]] = {}
    """Former name -> current name of a key. A former name is refused with a message that gives the current one."""

    provenance: SkipJsonSchema[Provenance] = Field(default=(), exclude=True, repr=False)
    """(field, source) of the values with a known source, sorted by field."""

    def __init__(self, /, *positional: Any, **data: Any) -> None:
        """Check the values, which must be given by keyword.

        Raises:
            BadInput: a value does not fit, or has no keyword; one line with field, value and remedy.
        """
        if positional:
            by_keyword = keywords(type(self).__name__, _fields(type(self)), type(self).model_fields)
            raise BadInput(f"{type(self).__name__}: takes no value without its keyword; write {by_keyword}")
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise BadInput(f"{type(self).__name__}: {fault_of(error, type(self), data)}") from None

    # With this mark, pydantic makes nested tables without calling this __init__, so errors keep their path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]
    __init__.__signature__ = signature(BaseModel.__init__)  # type: ignore[attr-defined]

    def __setattr__(self, name: str, value: Any) -> None:
        raise unchangeable(self, name)

    def __delattr__(self, name: str) -> None:
        raise unchangeable(self, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def _values(self) -> Any:
        return attrgetter(*names)(self) if (names := _fields(type(self))) else ()

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, data: Any, handler: Callable[[Any], Self], info: ValidationInfo) -> Self:
        """Read the name of a library entry, a table that starts from one (`base`), or a table of values."""
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
            patch = Patch.of({key: value for key, value in data.items() if key != "base"})
            return apply_patch(spec, patch, {**context, "merge": True})
        return handler(cls._unwrap(cls._expand(data)))

    @classmethod
    def _expand(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Replace the shorthands of a table by the full keys; a specification with shorthands overrides this."""
        return data

    @classmethod
    def _unwrap(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Separate the values of a table from their sources, and refuse unknown keys by name.

        A bare number is marked as the user's. In the values of an existing specification, which bring their
        `provenance`, a bare number without a source is a default and stays one.
        """
        fields, provenance = _fields(cls), data.get("provenance")
        exists, plain = isinstance(provenance, tuple), dict[str, Any]()
        if exists and data.keys() == {*fields, "provenance"} and dict not in map(type, data.values()):
            return data  # the values of an existing specification, none of them with a source of its own
        sources = dict(provenance) if isinstance(provenance, tuple) else {}
        for key, value in data.items():
            if key == "provenance" and exists:
                continue
            if key not in fields:
                raise unknown_key(cls, key, [*_fields(cls), *cls.aliases, *cls.shorthands])
            if _has_source(cls, key, value):
                sources[key] = read_source({k: v for k, v in value.items() if k != "value"}, key)
                value = value["value"]
            elif not exists and key not in sources and is_stated(value):
                sources[key] = _USER
            plain[key] = value
        return {**plain, "provenance": as_provenance(sources)}

    def after_change(self, old: Self) -> Self:
        """Return this copy, made from `old` by changes; a kind may refuse them, or bind its prices to the new values.

        Raises:
            Misplaced: the changes do not fit together, with the path from this specification on.
        """
        return self

    def canonical(self) -> dict[str, Any]:
        """All values that decide a result, as plain JSON values in SI units, without sources."""
        values: dict[str, Any] = with_infinities_as_text(self.model_dump(mode="json"))
        return values

    def physical(self) -> dict[str, Any]:
        """`canonical` without the cost fields: all values that decide the numbers that are computed."""
        values: dict[str, Any] = {}
        for name in _fields(type(self)):
            value = getattr(self, name)
            if name in self.cost_fields:
                continue
            values[name] = value.physical() if isinstance(value, Spec) else self._plain(name)
        return values

    def _plain(self, name: str) -> Any:
        return with_infinities_as_text(self.model_dump(mode="json", include={name})[name])


@cache
def _fields(cls: type[Spec]) -> tuple[str, ...]:
    return tuple(name for name in cls.model_fields if name != "provenance")


def _has_source(cls: type[Spec], key: str, value: Any) -> bool:
    """True if a field is written as `{ value = ..., source = ... }`, not as the table of a spec with a key `value`."""
    if not isinstance(value, dict) or "value" not in value:
        return False
    return not any("value" in model.model_fields for model in models(cls.model_fields[key].annotation))


def _entry(cls: type[T], name: str, context: Mapping[str, Any]) -> T:
    """The library entry that a file or a caller names.

    Raises:
        ValueError: there is no such entry, or the files that are being read lead back to it.
    """
    file = catalog.locate(cls.catalog_kind, name, beside=context.get("folder"))
    chain = _loading.get()
    if len(chain) >= LONGEST_CHAIN:
        raise ValueError(f"is one of more than {LONGEST_CHAIN} files that start from one another; join some of them")
    real = Path(realpath(file))
    if real in chain:
        names = [path.stem for path in chain[chain.index(real) :]]
        raise ValueError(f"leads back to itself ({' -> '.join([*names, names[0]])}); start from another entry")
    return _load(cls, file)


def _load(cls: type[T], file: Path) -> T:
    return _read_shipped_entry(cls, file) if catalog.is_shipped_alone(file) else _read_entry(cls, file)


@cache
def _read_shipped_entry(cls: type[T], file: Path) -> T:
    """An entry of the package that starts from entries of the package only; it is read once."""
    return _read_entry(cls, file)


def _read_entry(cls: type[T], file: Path) -> T:
    """The specification in the file of an entry."""
    token = _loading.set((*_loading.get(), Path(realpath(file))))
    try:
        data = catalog.read_table(cls.catalog_kind, file)
        if lost := lost_line(cls, data):
            other = ".".join((cls.catalog_kind, *lost[1]))
            reason = f"is overwritten by {other}, which {lost[2]}; leave one of them out"
            raise BadInput(f"{file}: {Misplaced((cls.catalog_kind, *lost[0]), None, reason)}")
        return validate(cls, data, where=str(file), top=cls.catalog_kind, folder=file.parent)
    finally:
        _loading.reset(token)


def load(cls: type[T], name: str) -> T:
    """Read a library entry.

    Args:
        cls: the specification that the entry describes.
        name: name of the entry, or path of a .toml file.

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
        where: beginning of messages, such as the name of the file.
        in_file: True if quantities need units, as in files; otherwise they may be SI floats.
        top: dotted path of the table within the file.
        folder: folder from which relative paths of library files start, besides the working directory.

    Raises:
        BadInput: one line with the place, the field, its value and the remedy.
    """
    try:
        return cls.model_validate(data, context={"file": in_file, "folder": folder})
    except ValidationError as error:
        fault = with_place(fault_of(error, cls, data), cls)
        place = f"{where}: " if where else ""
        raise BadInput(f"{place}{fault.below(*top.split('.')) if top else fault}") from None


def replace(spec: T, path: str, value: Any, *, in_file: bool = False) -> T:
    """A copy of the specification with the field at a dotted path changed.

    Args:
        spec: the specification.
        path: dotted path of the field.
        value: the new value. A new `kind` keeps the values of the fields that both kinds have.
        in_file: True if quantities need units, as in files; otherwise they may be SI floats.

    Raises:
        BadInput: there is no such field, or the value does not fit.
    """
    check_type("replace", "spec", spec, Spec, "a specification, such as what of.load returns")
    check_type("replace", "path", path, str, "the dotted path of a field, such as 'attention.array.rows'")
    try:
        return apply_patch(spec, Patch.of({path: value}), {"file": in_file})
    except Misplaced as fault:
        raise BadInput(str(with_place(fault, type(spec)))) from None


def apply_patch(spec: T, patch: Patch, context: Mapping[str, Any], copies: Copies | None = None) -> T:
    """A copy of a specification with all changes of a patch made, checked together after the last one.

    Args:
        spec: the specification.
        patch: the changes. A new `kind` keeps the values of the fields that both kinds have.
        context: of pydantic's validation: `file`, `folder` as in `validate`; `merge`: True if tables change single
            keys, as below a `base`, instead of replacing what is there.
        copies: the copies that this patch has made so far.

    Raises:
        Misplaced: a change does not fit, with the path from `spec` on.
    """
    return (done := copies or Copies()).of(spec, patch, lambda: _patched(spec, patch, context, done))


def _patched(spec: T, patch: Patch, context: Mapping[str, Any], copies: Copies) -> T:
    """As `apply_patch`, made anew."""
    cls, values, sources = type(spec), dict[str, Any](), dict(spec.provenance)
    short = {key: patch.changes[key] for key in cls.shorthands if key in patch.changes and key not in _fields(cls)}
    for each in patch.without(short).by_field(cls.aliases):
        field, old = each.name, values.get(each.name, getattr(spec, each.name, None))
        try:
            values[field] = _patched_field(cls, field, old, each.change, context, copies)
        except Misplaced as fault:
            raise each.as_written(fault) from None
        if not isinstance(each.change, Patch):
            stated = dict(cls._unwrap({field: each.change})["provenance"])
            if source := stated.get(field, None if context.get("merge") else _USER):
                sources[field] = source
            else:
                sources.pop(field, None)
    if short:
        values = {name: getattr(spec, name) for name in _fields(cls)} | values
        values |= cls._unwrap(expanded(short, values, cls.shorthands, cls._expand))
        sources |= dict(values.pop("provenance"))
    try:
        values["provenance"] = as_provenance(sources)
        made = cls.model_validate(values) if short else with_values(spec, values)
    except ValidationError as error:
        raise Misplaced(*patch.only_change(), fault_of(error, cls, {}).reason) from None
    return made.after_change(spec)


def _patched_field(cls: type[Spec], name: str, old: Any, change: Any, context: Mapping[str, Any], done: Copies) -> Any:
    """The value of a field after a change: a new value, or a patch of the specification that it holds."""
    if name not in _fields(cls):
        raise unknown_key(cls, name, [*_fields(cls), *cls.aliases, *cls.shorthands])
    table = isinstance(change, dict) and "base" not in change
    if table and context.get("merge") and isinstance(old, Spec) and not _changes_kind(old, change):
        change = Patch.of(change)
    if not isinstance(change, Patch):
        change = change if isinstance(change, Spec) else cls._unwrap({name: change})[name]
        return _check_field(cls, name, change, context)
    old = old if change.start is None else _check_field(cls, name, change.start, context)
    if old is None and models(cls.model_fields[name].annotation):
        return _check_field(cls, name, change.as_table(), context)  # the changes are all of the table
    if not isinstance(old, Spec):
        raise Misplaced((name,), None, "has no keys of its own; set it as a whole")
    try:
        if not _changes_kind(old, change.changes):
            return apply_patch(old, change, context, done)
        as_other_kind = _table_of_kind(members(cls, name), old, change, context)
    except Misplaced as fault:
        raise fault.below(name) from None
    return _check_field(cls, name, as_other_kind, {})


def _changes_kind(old: Spec, changes: Mapping[str, Any]) -> bool:
    """True if changes give a specification another `kind`."""
    if "kind" not in _fields(type(old)) or "kind" not in changes:
        return False
    return bool(changes["kind"] != getattr(old, "kind", None))


def _table_of_kind(
    kinds: Mapping[str, type[Spec]], old: Spec, patch: Patch, context: Mapping[str, Any]
) -> dict[str, Any]:
    """The table of the kind that a patch names: the patch, and the values of the fields that both kinds have."""
    kind = patch.changes["kind"]
    if not isinstance(kind, str) or kind not in kinds:
        raise Misplaced(("kind",), kind, f"is not a kind; {suggest(str(kind), list(kinds))}")
    cls = kinds[kind]
    new_values = cls._unwrap(patch.as_table())
    common = [key for key in _fields(cls) if key in _fields(type(old)) and key not in patch.changes]
    sources = {key: source for key, source in old.provenance if key in common} | dict(new_values.pop("provenance"))
    checked = {key: _check_field(cls, key, value, context) for key, value in new_values.items()}
    return {**{key: getattr(old, key) for key in common}, **checked, "provenance": as_provenance(sources)}


def _check_field(cls: type[Spec], name: str, value: Any, context: Mapping[str, Any]) -> Any:
    """The value of one field, checked against all its constraints."""
    try:
        return field_adapter(cls, name).validate_python(value, strict=True, context=dict(context))
    except ValidationError as error:
        raise fault_of(error, cls.model_fields[name].annotation, value).below(name) from None


@cache
def field_adapter(cls: type[Spec], name: str) -> TypeAdapter[Any]:
    """Reads the value of one field of a specification, with the constraints of the field."""
    field = cls.model_fields[name]
    annotation: Any = Annotated[field.annotation, field]
    return TypeAdapter(annotation)


def walk(spec: Spec, prefix: str = "") -> Iterator[tuple[str, Any, Source | None]]:
    """Dotted path, value and source of every leaf of a specification; the source is None for defaults and choices."""
    sources = dict(spec.provenance)
    for name in _fields(type(spec)):
        value = getattr(spec, name)
        if isinstance(value, Spec):
            yield from walk(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, sources.get(name)
