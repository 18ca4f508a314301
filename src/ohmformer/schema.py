"""The base of every specification: frozen, strict, and with errors that a reader can act on.

In files a quantity carries its unit ("10 uS") and, in a library, its source; in code it is an SI float. A field that
is itself a specification may be written as a table, as the name of a library entry, or as a table that starts from an
entry (`base = "name"`) and changes dotted keys of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from ohmformer import catalog, units
from ohmformer.errors import BadInput, suggest

Kind = Literal["published", "derived", "reconstructed", "assumed", "user"]
T = TypeVar("T", bound="Spec")


class Source(BaseModel):
    """Where a value comes from: citation key in sources.bib, place in it, how it was derived, and how sure it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    source: str = ""
    where: str = ""
    how: str = ""
    kind: Kind = "published"


def _quantity(unit: str) -> Callable[[Any, ValidationInfo], Any]:
    def convert(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str):
            return units.parse(value, unit)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and _in_file(info):
            raise ValueError(f"has no unit; write '{value:g} {unit}', with any prefix")
        return value

    return convert


def _in_file(info: ValidationInfo) -> bool:
    return bool(info.context and info.context.get("file"))


def quantity(unit: str) -> Any:
    """Annotation of a float field that is written with this unit in files."""
    return Annotated[float, BeforeValidator(_quantity(unit)), Field(allow_inf_nan=False, json_schema_extra={"unit": unit})]


Siemens = quantity("S")
Seconds = quantity("s")
Fraction = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Spec(BaseModel):
    """Base of all specifications. Values are immutable; `replace` makes a changed copy."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_inf_nan="strings")
    catalog_kind: ClassVar[str] = ""
    aliases: ClassVar[dict[str, tuple[str, ...]]] = {}
    """A path component that stands for several fields: `attention.array` sets key.array and value.array."""

    provenance: tuple[tuple[str, Source], ...] = Field(default=(), exclude=True, repr=False)

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, data: Any, handler: Callable[[Any], Self], info: ValidationInfo) -> Self:
        if isinstance(data, str) and cls.catalog_kind:
            return load(cls, data)
        if not isinstance(data, dict):
            return handler(data)
        if cls.catalog_kind and "base" in data:
            if not isinstance(data["base"], str):
                raise ValueError(f"base = {data['base']!r} is no name; write the name of a library {cls.catalog_kind}")
            spec = load(cls, data["base"])
            for path, value in data.items():
                spec = spec if path == "base" else replace(spec, path, value, in_file=_in_file(info))
            return spec
        return handler(cls._unwrap(cls._expand(data)))

    @classmethod
    def _expand(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Spell out shorthands of a table; a specification that has some overrides this."""
        return data

    @classmethod
    def _unwrap(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Take `{ value = ..., source = ... }` apart, and refuse unknown keys by name."""
        fields = set(cls.model_fields) - {"provenance"}
        plain: dict[str, Any] = {}
        sources = dict(data.get("provenance", ()))
        for key, value in data.items():
            if key == "provenance":
                continue
            if key not in fields:
                raise ValueError(f"unknown key {key!r}; {suggest(key, list(fields))}")
            if isinstance(value, dict) and "value" in value:
                sources[key] = _source({k: v for k, v in value.items() if k != "value"}, key)
                value = value["value"]
            plain[key] = value
        return {**plain, "provenance": tuple(sorted(sources.items(), key=itemgetter(0)))}

    def canonical(self) -> dict[str, Any]:
        """All that decides an answer, as plain JSON values in SI units (sources left out)."""
        return self.model_dump(mode="json")


def _source(marks: dict[str, Any], key: str) -> Source:
    marks.setdefault("kind", "derived" if "how" in marks else "published" if "source" in marks else "user")
    try:
        return Source.model_validate(marks)
    except ValidationError as error:
        raise ValueError(f"{key}: {_line(error, Source, marks)}") from None


def validate(cls: type[T], data: Any, *, where: str, in_file: bool = True) -> T:
    """Make a specification from plain data.

    Raises:
        BadInput: one line with the place, the field, its value and the remedy.
    """
    try:
        return cls.model_validate(data, context={"file": in_file})
    except ValidationError as error:
        raise BadInput(f"{where}: {_line(error, cls, data)}") from None


def load(cls: type[T], name: str) -> T:
    """The library entry (or .toml file) of this name, as `cls`."""
    file, data = catalog.read_entry(cls.catalog_kind, name)
    return validate(cls, data, where=str(file))


def replace(spec: T, path: str, value: Any, *, in_file: bool = False) -> T:
    """A copy of the specification with the field at a dotted path changed.

    Quantities are SI floats or strings with a unit; from files only the latter.

    Raises:
        BadInput: no such field, or a value that does not fit.
    """
    try:
        return _replace(spec, path.split("."), value, in_file)
    except ValidationError as error:
        raise BadInput(f"{path} = {value!r}: {_line(error, type(spec), value)}") from None
    except ValueError as error:
        raise BadInput(f"{path} = {value!r}: {error}") from None


def _replace(spec: T, parts: list[str], value: Any, in_file: bool) -> T:
    head, *rest = parts
    for target in spec.aliases.get(head, ()):
        spec = _replace(spec, [*target.split("."), *rest], value, in_file)
    if head in spec.aliases:
        return spec
    fields = [name for name in type(spec).model_fields if name != "provenance"]
    if head not in fields:
        raise ValueError(f"unknown key {head!r}; {suggest(head, [*fields, *spec.aliases])}")
    sources = dict(spec.provenance)
    if rest:
        inner = getattr(spec, head)
        if not isinstance(inner, Spec):
            raise ValueError(f"{head!r} has no fields of its own; set it as a whole")
        value = _replace(inner, rest, value, in_file)
    else:
        unwrapped = spec._unwrap({head: value})
        value = _field(type(spec), head).validate_python(unwrapped[head], strict=True, context={"file": in_file})
        sources[head] = dict(unwrapped["provenance"]).get(head, Source(kind="user"))
    data = {name: getattr(spec, name) for name in fields}
    return type(spec).model_validate({**data, head: value, "provenance": tuple(sorted(sources.items(), key=itemgetter(0)))})


def _field(cls: type[Spec], name: str) -> TypeAdapter[Any]:
    """The validator of one field, with all its constraints."""
    field = cls.model_fields[name]
    return TypeAdapter(Annotated[field.annotation, field])


def walk(spec: Spec, prefix: str = "") -> Iterator[tuple[str, Any, Source | None]]:
    """Every leaf of a specification: dotted path, value, source (None where the value is a default)."""
    sources = dict(spec.provenance)
    for name in type(spec).model_fields:
        if name == "provenance":
            continue
        value = getattr(spec, name)
        if isinstance(value, Spec):
            yield from walk(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, sources.get(name)


def _line(error: ValidationError, cls: type[BaseModel], data: Any) -> str:
    """The first of pydantic's errors as one line: path, value, what to do."""
    first = error.errors(include_url=False)[0]
    path = ".".join(_path(first["loc"], data))
    value = first["input"]
    shown = "" if isinstance(value, (dict, BaseModel)) or first["type"] == "missing" else f" = {value!r}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        message = "is missing; add it"
    elif not message.startswith(("has ", "is ", "unknown ")):
        message = message[0].lower() + message[1:]
    more = error.error_count() - 1
    tail = f" (and {more} more)" if more else ""
    return f"{path}{shown}: {message}{tail}" if path else f"{message}{tail}"


def _path(loc: tuple[int | str, ...], data: Any) -> list[str]:
    """The keys a reader wrote: pydantic also names the chosen member of a union, which is no key."""
    parts: list[str] = []
    for part in loc:
        if isinstance(data, dict) and part not in data and data.get("kind") == part:
            continue
        parts.append(str(part))
        data = data.get(part) if isinstance(data, dict) else None
    return parts
