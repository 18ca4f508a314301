"""Families: groups of interchangeable specifications, chosen by `kind`, which other packages may extend.

A family is a class. A field `write_noise: WriteNoise` holds a table whose `kind` selects the subclass of `WriteNoise`
that reads it. A kind is one class with the decorator `@register`; the kinds of this package use it as well. A script
registers its kinds when it runs. An installed package names each kind in an entry point, so that files can use it
without an import:

    [project.entry-points."ohmformer.write_noise"]
    my_kind = "my_package.noise:MyKind"

The group is "ohmformer." followed by the family; the name is the kind. An entry point is loaded when a file names its
kind, or when all kinds are listed; what its import prints goes to standard error. A kind whose name another package
uses as well is refused where a file names it. Free of torch.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from numbers import Real
from pathlib import Path
from threading import RLock
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, cast, get_args, get_origin

from pydantic import Field, TypeAdapter, ValidationInfo
from pydantic_core import core_schema

from ohmformer.errors import BadInput, shown, suggest
from ohmformer.schema import Spec

K = TypeVar("K", bound="type[Family]")

PACKAGE = __name__.split(".")[0]

_roots: dict[str, type[Family]] = {}
_kinds: dict[str, dict[str, type[Family]]] = {}
"""Family -> kind -> class."""

_loading = RLock()
"""Held while an entry point is loaded, since the redirection of standard output is global to the process."""


def _is_root(cls: type[Any]) -> bool:
    """True if the class is a family itself, not one of its kinds."""
    return bool(vars(cls).get("family"))


class Family(Spec):
    """Base of all families. A subclass that sets `family` is a family; its subclasses are kinds.

    Attributes:
        family: name of the family: of the field that holds it, and the end of its group of entry points.
        default_kind: the kind of a table without `kind`; empty if `kind` is required.
    """

    family: ClassVar[str] = ""
    default_kind: ClassVar[str] = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse to make a family itself, which has the fields of none of its kinds.

        Raises:
            BadInput: the class is a family.
        """
        if _is_root(cls):
            kinds = sorted(each.__name__ for each in _kinds[cls.family].values())
            raise BadInput(f"{cls.__name__} is a family of kinds; make one of them: {', '.join(kinds)}")
        return super().__new__(cls)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if _is_root(cls):
            _roots[cls.family] = cls
            _kinds.setdefault(cls.family, {})

    @classmethod
    def kinds(cls) -> dict[str, type[Any]]:
        """Kind -> class for all kinds of the family and its entry points; kinds that cannot be loaded are left out."""
        cls.failures()
        return dict(_kinds[cls.family])

    @classmethod
    def failures(cls) -> list[str]:
        """Load the kinds of all entry points; return a message for each that cannot be loaded."""
        messages = []
        for point in _entry_points(cls.family):
            try:
                _load(cls.family, point)
            except BadInput as error:
                messages.append(str(error))
        return messages

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """The schema of a family reads a table as the kind that it names; that of a kind reads its fields."""
        if not _is_root(cls):
            schema: core_schema.CoreSchema = handler(source)
            return schema
        return core_schema.with_info_plain_validator_function(cls._read_kind)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        if not _is_root(cls):
            return handler(schema)
        # pydantic turns a schema with a `ref` into a reference only below another schema, here a list
        lists = {kind: core_schema.list_schema(_with_ref(member)) for kind, member in cls.kinds().items()}
        references = {kind: handler(schema)["items"] for kind, schema in lists.items()}
        mapping = {kind: reference["$ref"] for kind, reference in references.items()}
        return {"discriminator": {"mapping": mapping, "propertyName": "kind"}, "oneOf": list(references.values())}

    @classmethod
    def _read_kind(cls, value: Any, info: ValidationInfo) -> Any:
        """Read a table as the kind that it names; an object of a registered kind is returned unchanged."""
        if isinstance(value, cls):
            if _kinds[cls.family].get(getattr(value, "kind", "")) is not type(value):
                raise ValueError(f"{type(value).__name__} is not registered; mark the class with @register")
            return value
        if isinstance(value, dict):
            if cls.default_kind and "kind" not in value:
                value = {**value, "kind": cls.default_kind}
            kind = value.get("kind")
            if isinstance(kind, str):
                _find(cls.family, kind)
        members = tuple(_kinds[cls.family].values())
        return _adapter(members).validate_python(value, strict=True, context=info.context)

    @classmethod
    def check_class(cls) -> None:
        """Raise `BadInput` if `register` must refuse this class; a family with further requirements overrides this."""


def _families_of(cls: type[Any]) -> list[type[Family]]:
    return [base for base in cls.__mro__ if _is_root(base)]


def _with_ref(cls: type[Family]) -> Any:
    """The schema of a kind with a unique name, so that a JSON schema can refer to it."""
    schema = cls.__pydantic_core_schema__
    return {"ref": f"{cls.__module__}.{cls.__qualname__}:{id(cls)}", **schema}


@cache
def _adapter(members: tuple[type[Family], ...]) -> TypeAdapter[Any]:
    """Reads a table as one of these kinds, with the errors of a pydantic union."""
    if len(members) == 1:
        return TypeAdapter(members[0])
    union: Any = Union[members]  # noqa: UP007
    return TypeAdapter(Annotated[union, Field(discriminator="kind")])


def register(cls: K) -> K:
    """Class decorator: add a kind to its family (to each family, if it derives from several).

    A class with the module and name of a registered class replaces it.

    Raises:
        BadInput: the class belongs to no family, has no `kind` or lacks a method, can be changed, or the family has
            another kind of this name.
    """
    families = _families_of(cls) if isinstance(cls, type) else []
    if not families:
        names = ", ".join(sorted(family.__name__ for family in _roots.values()))
        title = getattr(cls, "__name__", "") or shown(cls)
        others = "or another base class of docs/extending.md"  # families that have not been imported yet
        raise BadInput(f"register({title}): belongs to no family; derive it from one of {names}, {others}")
    kind = _kind_of(cls)
    cls.check_class()
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise BadInput(
            f"register({cls.__name__}): has no {', '.join(missing)}; define what {families[0].__name__} requires"
        )
    changed = sorted(name for name, value in Family.model_config.items() if cls.model_config.get(name) != value)
    if changed:
        raise BadInput(
            f"register({cls.__name__}): model_config sets {', '.join(changed)}; leave it out: a specification never "
            "changes, and takes only its own fields"
        )
    for family in families:
        other = _kinds[family.family].get(kind)
        if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise BadInput(
                f"register({cls.__name__}): {family.family} has a kind {shown(kind)} already, "
                f"{other.__module__}.{other.__qualname__}; choose another name"
            )
    for family in families:
        _kinds[family.family][kind] = cls
    return cls


def refuse_former_names(cls: type, names: Mapping[str, str]) -> None:
    """Refuse a class that defines methods under names that they no longer have.

    Args:
        cls: the class.
        names: former name of a method -> its name.

    Raises:
        BadInput: it has such a method.
    """
    for former, name in names.items():
        if callable(getattr(cls, former, None)):
            raise BadInput(f"register({cls.__name__}): the method {former} is now called {name}; rename it")


def _kind_of(cls: type[Family]) -> str:
    """The `kind` of a class.

    Raises:
        BadInput: it has none.
    """
    field = cls.model_fields.get("kind")
    names = get_args(field.annotation) if field is not None and get_origin(field.annotation) is Literal else ()
    if len(names) != 1 or field is None or field.default != names[0] or not _is_name(names[0]):
        raise BadInput(f'register({cls.__name__}): has no kind; write kind: Literal["name"] = "name"')
    return str(names[0])


def _is_name(kind: object) -> bool:
    """True for text that a file can hold and a terminal can show."""
    return isinstance(kind, str) and kind.isprintable() and kind.strip() == kind != ""


def named(family: Any, kind: str, where: str) -> type[Any]:
    """The class of a kind; its entry point is loaded if necessary.

    Args:
        family: the family, such as `WriteNoise`.
        kind: name of the kind.
        where: beginning of the message, such as "task.metric".

    Raises:
        BadInput: there is no such kind, or its entry point cannot be loaded.
    """
    cls = _find(family.family, kind)
    if cls is None:
        raise BadInput(
            f"{where} = {shown(kind)}: is not a kind of {family.family}; {suggest(str(kind), list(family.kinds()))}"
        )
    return cls


def known(family: Any, kind: str) -> bool:
    """True if there is a kind of this name.

    Raises:
        BadInput: its entry point cannot be loaded.
    """
    return _find(family.family, kind) is not None


def families() -> dict[str, type[Family]]:
    """Name -> class for all families whose modules have been imported."""
    return dict(_roots)


def _find(family: str, kind: str) -> type[Family] | None:
    """The class of a kind, from its entry point if it is not registered yet; None if there is none.

    Raises:
        BadInput: an entry point of this name cannot be loaded, or names another class than the registered one.
    """
    for point in _entry_points(family):
        if point.name == kind:
            _load(family, point)
    return _kinds[family].get(kind)


@cache
def _entry_points(family: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=f"{PACKAGE}.{family}"))


def _load(family: str, point: EntryPoint) -> None:
    """Import the class that an entry point names.

    Raises:
        BadInput: the import fails, or does not register a kind of the family with the name of the entry point; or the
            name is that of a kind of another package.
    """
    where = f"entry point {shown(point.name)} of {PACKAGE}.{family} ({point.value})"
    try:
        with _loading, redirect_stdout(sys.stderr):  # standard output may be for results alone
            loaded = point.load()
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    except (Exception, SystemExit) as error:
        raise BadInput(
            f"{where}: cannot be loaded ({type(error).__name__}: {error}); repair or remove the package"
        ) from error
    cls = _kinds[family].get(point.name)
    if cls is None:
        raise BadInput(f"{where}: registers no {family} of that kind; mark the class with @register, under this name")
    if cls is not loaded and cls.__module__.split(".")[0] != point.module.split(".")[0]:
        raise BadInput(
            f"{where}: {family} has a kind {shown(point.name)} already, {cls.__module__}.{cls.__qualname__}; rename "
            "the kind of the entry point, or remove its package"
        )


def called(kind: Family, method: str, *arguments: Any, passing: tuple[type[Exception], ...] = ()) -> Any:
    """The result of a method of a kind.

    Args:
        kind: the object whose method is called.
        method: name of the method.
        arguments: its arguments.
        passing: exceptions that the caller handles, so they are raised as they are.

    Raises:
        BadInput: the method belongs to a kind of another package, and raises another exception.
    """
    try:
        return getattr(kind, method)(*arguments)
    except passing:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, BadInput) or is_own(type(kind)):
            raise
        where = f"{type(kind).__name__}.{method}"
        raise BadInput(f"{where}: raised {type(error).__name__}: {error}; correct the method or the file") from error


def number_from(kind: Family, method: str, *arguments: Any, passing: tuple[type[Exception], ...] = ()) -> float:
    """The number that a method of a kind returns; the arguments are those of `called`.

    Raises:
        BadInput: as `called`, or the method returns something else.
    """
    value = called(kind, method, *arguments, passing=passing)
    if not isinstance(value, Real) or isinstance(value, bool):
        raise BadInput(f"{type(kind).__name__}.{method}: returns {shown(value)}; return a number")
    return float(value) if hasattr(value, "__float__") else cast("float", value)  # a number for each of many designs


def outside(values: Any) -> Iterator[type[Family]]:
    """The classes of other packages among the kinds that a specification contains, at any depth."""
    if isinstance(values, Family) and not is_own(type(values)):
        yield type(values)
    if isinstance(values, Spec):
        for name in type(values).model_fields:
            if name != "provenance":
                yield from outside(getattr(values, name))
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from outside(value)
    elif isinstance(values, Mapping):
        yield from outside(list(values.values()))


def is_own(cls: type[Any]) -> bool:
    """True if the class belongs to this package."""
    return cls.__module__.split(".")[0] == PACKAGE


def code_digest(cls: type[Any]) -> str:
    """SHA-256 of the code of a class from another package, for the keys of results.

    It covers all modules of the package, or the one module of a class that is in no package, and the same of the
    classes that it derives from.

    Raises:
        BadInput: the source code is not available.
    """
    digest = hashlib.sha256()
    known = {PACKAGE, "pydantic", *sys.stdlib_module_names} - {"__main__"}
    bases = [base for base in cls.__mro__ if base.__module__.split(".")[0] not in known]
    read: set[Path] = set()
    for base in bases:
        files = _code_files(base)
        try:
            for file in files:
                if file not in read:
                    digest.update(file.read_bytes())
            if not files:
                digest.update(inspect.getsource(base).encode())
        except (OSError, TypeError):
            raise BadInput(
                f"{base.__name__}: its source code is not available, so its results cannot be told from those of other "
                "versions; define it in a file"
            ) from None
        read.update(files)
    return digest.hexdigest()


def _code_files(cls: type[Any]) -> list[Path]:
    """The files of all modules of the package of a class, or of its one module; empty if it is in no file."""
    module = sys.modules.get(cls.__module__)
    top = sys.modules.get(cls.__module__.split(".")[0])
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    if not files and getattr(module, "__file__", None):
        files = [Path(str(getattr(module, "__file__", "")))]
    return files
