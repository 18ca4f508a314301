"""Errors that a user can mend: one line that says where, what and how; and the words for what pydantic finds."""

from __future__ import annotations

import re
import types
import unicodedata
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

_NOTHING = object()

SHOWN = 80
"""Characters of a value or key that a message repeats at most."""
LINE = 1500
"""Characters of a message at most."""

_BREAKS = re.compile(r"\s*[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+\s*")
_NUMBER = re.compile(r"\s*[-+]?[0-9.]{1,40}\s*")
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
"""Marks that turn the direction of text, and the byte-order mark: they show nothing and change what is read."""

_BOUNDS = {
    "greater_than_equal": (">= {ge}", "raise it"),
    "greater_than": ("> {gt}", "raise it"),
    "less_than_equal": ("<= {le}", "lower it"),
    "less_than": ("< {lt}", "lower it"),
}

_TYPES = {
    "int_type": ("a whole number", "write it without quotes and decimals"),
    "int_from_float": ("a whole number", "write it without decimals"),
    "float_type": ("a number", "write it without quotes"),
    "finite_number": ("finite", "write a finite number"),
    "bool_type": ("true or false", "write it without quotes"),
    "string_type": ("text", "put it in quotes"),
    "tuple_type": ("a list", "put it in [ ]"),
    "list_type": ("a list", "put it in [ ]"),
    "dict_type": ("a table", "put it in { }"),
}
"""Error type of pydantic -> what the value must be, and the remedy."""


class BadInput(Exception):
    """Bad input: a file, a field, a model or data that cannot be used as it is.

    Its text is one line of at most `LINE` characters that is safe to print, whatever the input holds.

    It deliberately is no `ValueError`: pydantic lets it pass through nested validation unchanged, so the file and the
    field that it names are those of the innermost document.
    """

    def __init__(self, text: object = "") -> None:
        super().__init__(cut(printable(str(text)), LINE))


def printable(text: str) -> str:
    """One line of text that a terminal shows and does not obey.

    Line breaks and tabs become a space. Other control characters (C0, C1), lone surrogates and marks that turn the
    direction of text become escapes such as \\x1b.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(letter) for letter in _BREAKS.sub(" ", text))


def _escaped(letter: str) -> str:
    harmful = letter in _DIRECTIONS or unicodedata.category(letter) in ("Cc", "Cs")
    return ascii(letter)[1:-1] if harmful else letter


def cut(text: str, most: int = SHOWN) -> str:
    """The text, or its beginning and end where it has more than `most` characters."""
    if len(text) <= most:
        return text
    end = most // 5
    return f"{text[: most - end - 3]}...{text[-end:]}"


def shown(value: object) -> str:
    """A value as a message repeats it: its `repr`, cut at `SHOWN` characters."""
    try:
        return cut(repr(value))
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"
    except RecursionError:
        return "a value nested too deeply"


def suggest(word: str, known: list[str]) -> str:
    """A remedy for an unknown word: the closest known one, and the list."""
    import difflib

    close = difflib.get_close_matches(word[:SHOWN], known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(sorted(known))}"


class Misplaced(ValueError):
    """A value that does not fit, with the path of keys that leads to it.

    Attributes:
        keys: from the specification that raises it down to the value.
        value: as the reader wrote it; None where it says nothing.
        reason: what is wrong and what to do.
    """

    def __init__(self, keys: tuple[str, ...], value: Any, reason: str) -> None:
        self.keys, self.value, self.reason = keys, value, reason
        written = "" if value is None or isinstance(value, (dict, BaseModel)) else f" = {shown(value)}"
        super().__init__(f"{'.'.join(map(cut, keys))}{written}: {reason}" if keys else reason)

    def below(self, *keys: str) -> Misplaced:
        """The same, seen from further up."""
        return Misplaced((*keys, *self.keys), self.value, self.reason)

    def moved(self, found: tuple[str, ...], written: tuple[str, ...]) -> Misplaced:
        """The same, where the reader wrote other first keys than those that it was found under."""
        if self.keys[: len(found)] != found:
            return self
        return Misplaced((*written, *self.keys[len(found) :]), self.value, self.reason)


def fault_of(error: ValidationError, kind: Any, data: Any) -> Misplaced:
    """The first of pydantic's errors, all that it says of one key taken together, and how many keys more are wrong.

    Args:
        error: raised while `data` was made a `kind`.
        kind: a specification, or the annotation of a field.
        data: what the reader wrote.
    """
    by_keys: dict[tuple[str, ...], list[Any]] = {}
    for found in error.errors(include_url=False):
        keys, _ = _follow(kind, found["loc"], data)
        below = found.get("ctx", {}).get("error")
        by_keys.setdefault(keys + (below.keys if isinstance(below, Misplaced) else ()), []).append(found)
    keys, group = next(iter(by_keys.items()))
    first = group[0]
    below = first.get("ctx", {}).get("error")
    more = f" (and {len(by_keys) - 1} more)" if len(by_keys) > 1 else ""
    if isinstance(below, Misplaced):
        return Misplaced(keys, below.value, below.reason + more)
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        keys = (*keys, "kind")
    written = _written(data, keys)
    value = (
        None
        if first["type"] in ("missing", "union_tag_not_found")
        else first["input"]
        if written is _NOTHING
        else written
    )
    return Misplaced(keys, value, _reason(group, _follow(kind, first["loc"], data)[1]) + more)


def members(cls: type[BaseModel], field: str) -> dict[str, type[Any]]:
    """The kinds that a field chooses from: their `kind`, and the specification."""
    return _by_kind(cls.model_fields[field].annotation)


def models(annotation: Any) -> list[type[BaseModel]]:
    """The specifications that an annotation joins."""
    return [option for option in _options(annotation) if isinstance(option, type) and issubclass(option, BaseModel)]


def _by_kind(annotation: Any) -> dict[str, type[Any]]:
    found = models(annotation)
    return {str(model.model_fields["kind"].default): model for model in found if "kind" in model.model_fields}


def _options(annotation: Any) -> list[Any]:
    """The types that an annotation joins."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _options(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [option for part in get_args(annotation) for option in _options(part)]
    kinds = getattr(annotation, "kinds", None) if "family" in getattr(annotation, "__dict__", ()) else None
    return list(kinds().values()) or [annotation] if kinds else [annotation]


def _follow(kind: Any, loc: tuple[int | str, ...], data: Any) -> tuple[tuple[str, ...], Any]:
    """The keys that the reader wrote, without the members of unions that pydantic names; and what is expected there."""
    if not loc:
        return (), kind
    part, rest = loc[0], loc[1:]
    options = _options(kind)
    chosen = _by_kind(kind).get(str(part))
    if chosen is not None and len(options) > 1:
        return _follow(chosen, rest, data)
    inner = data.get(part) if isinstance(data, dict) else None
    for option in options:
        if isinstance(option, type) and issubclass(option, BaseModel) and part in option.model_fields:
            keys, expected = _follow(option.model_fields[str(part)].annotation, rest, inner)
            return _as_written((str(part), *keys), option, data), expected
        if get_origin(option) in (list, tuple, dict) and (isinstance(part, int) or get_origin(option) is dict):
            keys, expected = _follow(get_args(option)[-1 if get_origin(option) is dict else 0], rest, inner)
            return (str(part), *keys), expected
    unknown = not rest and isinstance(data, dict) and part in data
    return ((str(part),), kind) if unknown else _follow(kind, rest, data)


def _as_written(keys: tuple[str, ...], model: Any, data: Any) -> tuple[str, ...]:
    """Keys under the alias that was spelled out into them."""
    for alias, targets in getattr(model, "aliases", {}).items():
        for target in (tuple(target.split(".")) for target in targets):
            if isinstance(data, dict) and alias in data and keys[: len(target)] == target:
                return (alias, *keys[len(target) :])
    return keys


def _written(data: Any, keys: tuple[str, ...]) -> Any:
    """What the reader wrote at these keys, or `_NOTHING`."""
    for key in keys:
        if not isinstance(data, dict) or key not in data:
            return _NOTHING
        data = data[key]
    return data["value"] if isinstance(data, dict) and "value" in data else data


def _reason(group: list[Any], expected: Any) -> str:
    """What is wrong with one key: the alternatives of a union are joined."""
    if len(group) == 1:
        return _single(group[0], expected)
    wanted = dict.fromkeys(_wanted(found, expected)[0] for found in group)
    if "" in wanted:
        return _single(group[0], expected)
    return f"must be {' or '.join(wanted)}; correct it"


def _single(found: Any, expected: Any) -> str:
    match found["type"]:
        case "missing":
            return "is missing; add it"
        case "union_tag_not_found":
            return f"is missing; add kind = {_kinds(expected)}"
        case "union_tag_invalid":
            return f"is no kind; {suggest(str(found['ctx']['tag']), list(_by_kind(expected)))}"
        case "extra_forbidden":
            return "is no key here; leave it out"
        case _:
            wanted, remedy = _wanted(found, expected)
    if wanted:
        return f"must be {wanted}; {remedy}"
    message = str(found["msg"]).removeprefix("Value error, ")
    own = found["type"] == "value_error"
    return message if own else f"{message[:1].lower()}{message[1:]}; correct it"


def _wanted(found: Any, expected: Any) -> tuple[str, str]:
    """What the value must be, and the remedy; ('', '') where pydantic's own words have to do."""
    kind, context = found["type"], found.get("ctx", {})
    if kind in _BOUNDS:
        wanted, remedy = _BOUNDS[kind]
        return wanted.format(**{name: _number(bound) for name, bound in context.items()}), remedy
    if kind in ("float_type", "int_type") and isinstance(found["input"], str) and not _NUMBER.fullmatch(found["input"]):
        return _TYPES[kind][0], "write the number alone, without unit and quotes"
    if kind in _TYPES:
        return _TYPES[kind]
    if kind == "literal_error":
        return str(context["expected"]), _closest(found["input"], expected)
    if kind in ("model_type", "model_attributes_type"):
        entry = next((option.catalog_kind for option in _options(expected) if getattr(option, "catalog_kind", "")), "")
        kinds = "" if getattr(expected, "default_kind", "") else _kinds(expected)
        table = f"a table with kind = {kinds}" if kinds else "a table"
        return (f"{table} or the name of a library {entry}" if entry else table), "put it in { }"
    return "", ""


def _number(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def _kinds(expected: Any) -> str:
    *others, last = [repr(kind) for kind in _by_kind(expected)] or [""]
    return f"{', '.join(others)} or {last}" if others else last


def _closest(word: Any, expected: Any) -> str:
    words = [str(value) for option in _options(expected) if get_origin(option) is Literal for value in get_args(option)]
    hint, known, _ = suggest(str(word), words).partition("known: ")
    return hint.strip() if hint and known else "take one of them" if len(words) > 1 else "take it"
