"""Error messages: one line with place, fault and remedy; and the translation of pydantic's errors into such lines."""

from __future__ import annotations

import re
import types
import unicodedata
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ohmformer.wording import with_article, without_place

_NOTHING = object()

SHOWN = 80
"""Maximum number of characters of a value or key in a message."""
LONGEST_WORD = 300
"""Maximum number of characters without a space in a message, such as a path; longer ones are cut to `SHOWN`."""
LONGEST_LINE = 1500
"""Maximum number of characters of a message."""
LEAST_SIMILARITY = 0.6
"""Least similarity of a suggestion to the word that it replaces, as a share of equal letters (`difflib`)."""
NEARER = 0.75
"""The same for a suggestion with another first letter."""
SHORTEST_PART = 3
"""Least number of letters of an unknown word for which a longer word that contains it is suggested."""

_BREAKS = re.compile(r"\s*[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+\s*")
_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")
_NUMBER = re.compile(r"\s*[-+]?[0-9.]{1,40}\s*")
_JOINERS = frozenset("\u200c\u200d")
"""Invisible characters that many scripts and emoji need."""

_BOUNDS = {
    "greater_than_equal": (">= {ge}", "raise it"),
    "greater_than": ("> {gt}", "raise it"),
    "less_than_equal": ("<= {le}", "lower it"),
    "less_than": ("< {lt}", "lower it"),
    "too_short": ("a list of at least {min_length}", "add values"),
    "too_long": ("a list of at most {max_length}", "leave out values"),
}

_TYPES = {
    "int_type": ("a whole number", "write one without quotes and decimals"),
    "int_from_float": ("a whole number", "write it without decimals"),
    "float_type": ("a number", "write one without quotes"),
    "finite_number": ("finite", "write a finite number"),
    "bool_type": ("true or false", "write one of the two, without quotes"),
    "string_type": ("text", "put it in quotes"),
    "tuple_type": ("a list", "put it in [ ]"),
    "list_type": ("a list", "put it in [ ]"),
    "dict_type": ("a table", "put it in { }"),
}
"""Error type of pydantic -> what the value must be, and the remedy."""


class BadInput(Exception):
    """Bad input: a file, a field, a model or data that cannot be used as it is.

    Its text is one line of at most `LONGEST_LINE` characters that is safe to print, whatever the input contains.

    It is deliberately not a `ValueError`: pydantic passes other exceptions through nested validation unchanged, so the
    message names the file and the field of the innermost document.
    """

    def __init__(self, text: object = "") -> None:
        super().__init__(shortened(printable(str(text))))


def printable(text: str) -> str:
    """The text as one line without characters that control a terminal.

    Line breaks and tabs become a space. Other control characters (C0, C1), lone surrogates and invisible characters
    (marks of direction, zero-width spaces), except joiners, become escapes such as \\x1b.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(letter) for letter in _BREAKS.sub(" ", text))


def _escaped(letter: str) -> str:
    harmful = letter not in _JOINERS and unicodedata.category(letter) in ("Cc", "Cf", "Cs")
    return ascii(letter)[1:-1] if harmful else letter


def cut(text: str) -> str:
    """The text; its beginning, its end and its length, together `SHOWN` characters, if it has more of them."""
    length = f" ({len(text):,} characters)"
    return text if len(text) <= SHOWN else f"{_ends(text, SHOWN - len(length))}{length}"


def shortened(message: str) -> str:
    """A message with long words cut, and of at most `LONGEST_LINE` characters."""
    message = _LONG_WORD.sub(_cut_word, message)
    return message if len(message) <= LONGEST_LINE else _ends(message, LONGEST_LINE)


def _cut_word(found: re.Match[str]) -> str:
    """A long word cut, followed by the punctuation that ends it."""
    word = found[0].rstrip(";:,.")
    return f"{cut(word)}{found[0][len(word) :][:1]}"


def _ends(text: str, most: int) -> str:
    """Beginning and end of a text, together `most` characters."""
    end = most // 5
    return f"{text[: most - end - 3]}...{text[-end:]}"


def shown(value: object) -> str:
    """A value as messages show it: its `repr`, cut to `SHOWN` characters."""
    try:
        return cut(repr(value))
    except ValueError:  # Python refuses to convert integers of more than 4,300 digits
        return "a number of thousands of digits"
    except RecursionError:
        return "a value nested too deeply"


def one_line(value: object) -> str:
    """A value as `shown`, on one line: tensors and arrays have more."""
    return " ".join(shown(value).split())


def given(value: object) -> str:
    """What a user gave, as messages say it: 'an int, 3' for plain values, 'a Tensor' for all others."""
    if value is None:
        return "None"
    name = type(value).__name__
    plain = isinstance(value, (str, bytes, int, float, complex)) or (
        isinstance(value, (list, tuple, dict, set)) and not value
    )
    return f"{with_article(name)}, {one_line(value)}" if plain else with_article(name)


def check_type(function: str, name: str, value: object, kinds: Any, remedy: str) -> None:
    """Refuse an argument of a wrong type.

    Args:
        function: public name of the function, for the message.
        name: name of the argument.
        value: its value.
        kinds: the types that it may have, as `isinstance` takes them.
        remedy: what to give instead.

    Raises:
        BadInput: it has another type.
    """
    if not isinstance(value, kinds):
        raise BadInput(f"{function}: {name} is {given(value)}; give {remedy}")


def suggest(word: str, known: list[str]) -> str:
    """A remedy for an unknown word: the closest known word, if one is close, and the list of all, each once."""
    close = closest(word, known)
    hint = f"did you mean {close!r}? " if close else ""
    return f"{hint}known: {', '.join(sorted(set(known)))}"


def closest(word: str, known: list[str]) -> str:
    """The known word that a user most likely meant; empty if none is close.

    A known word is close if it is spelled alike, whatever its case and whatever joins its parts ('Bert base' for
    'bert-base'), or if it contains the unknown word ('bert' for 'bert_base'). Words with another first letter must be
    more alike.
    """
    import difflib

    plain = _plain_word(word[:SHOWN])
    by_plain = {_plain_word(name): name for name in reversed(known)}
    if plain in by_plain:
        return by_plain[plain]
    alike = difflib.get_close_matches(plain, list(by_plain), n=5, cutoff=LEAST_SIMILARITY)
    nearer = difflib.get_close_matches(plain, list(by_plain), n=5, cutoff=NEARER)
    same_start = [name for name in alike if name in nearer or name[:1] == plain[:1]]
    longer = sorted((name for name in by_plain if plain in name), key=lambda name: (name.find(plain) > 0, name))
    chosen = [*same_start, *(longer if len(plain) >= SHORTEST_PART else [])]
    return by_plain[chosen[0]] if chosen else ""


def _plain_word(word: str) -> str:
    """A word in lower case, with `_` for everything that joins its parts."""
    return re.sub(r"[\s_-]+", "_", word.strip().casefold())


class Misplaced(ValueError):
    """A value that does not fit, with the path of keys that leads to it.

    Attributes:
        keys: path from the specification that raises it down to the value.
        value: the value as the user wrote it; None if the message should not repeat it.
        reason: the fault and the remedy.
    """

    def __init__(self, keys: tuple[str, ...], value: Any, reason: str) -> None:
        self.keys, self.value, self.reason = keys, value, reason
        written = "" if value is None or isinstance(value, (dict, BaseModel)) else f" = {shown(value)}"
        fault = without_place(reason, keys, value=bool(written))
        super().__init__(f"{'.'.join(map(cut, keys))}{written}: {fault}" if keys else reason)

    def below(self, *keys: str) -> Misplaced:
        """The same fault, with `keys` in front of its path."""
        return Misplaced((*keys, *self.keys), self.value, self.reason)

    def moved(self, target: tuple[str, ...], written: tuple[str, ...]) -> Misplaced:
        """The same fault, under the first keys that the user wrote (an alias) instead of those that they stand for."""
        if self.keys[: len(target)] != target:
            return self
        return Misplaced((*written, *self.keys[len(target) :]), self.value, self.reason)


def fault_of(error: ValidationError, kind: Any, data: Any) -> Misplaced:
    """The fault of the first wrong key, with the number of other wrong keys.

    Pydantic reports one error per member of a union; those of the same key become one fault.

    Args:
        error: raised while `data` was validated as a `kind`.
        kind: a specification, or the annotation of a field.
        data: what the user wrote.
    """
    by_keys: dict[tuple[str, ...], list[Any]] = {}
    for entry in error.errors(include_url=False):
        keys, _ = _follow(kind, entry["loc"], data)
        below = entry.get("ctx", {}).get("error")
        by_keys.setdefault(keys + (below.keys if isinstance(below, Misplaced) else ()), []).append(entry)
    keys, group = next(iter(by_keys.items()))
    first = group[0]
    below = first.get("ctx", {}).get("error")
    more = f" (and {len(by_keys) - 1} more)" if len(by_keys) > 1 else ""
    if isinstance(below, Misplaced):
        return Misplaced(keys, below.value, below.reason + more)
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        keys = (*keys, "kind")
    value = None
    if first["type"] not in ("missing", "union_tag_not_found"):
        written = _written(data, keys)
        value = first["input"] if written is _NOTHING else written
    return Misplaced(keys, value, _reason(group, _follow(kind, first["loc"], data)[1]) + more)


def members(cls: type[BaseModel], field: str) -> dict[str, type[Any]]:
    """`kind` -> specification, for the kinds that a field accepts."""
    return _by_kind(cls.model_fields[field].annotation)


def models(annotation: Any) -> list[type[BaseModel]]:
    """The specifications among the types of an annotation."""
    return [option for option in _options(annotation) if isinstance(option, type) and issubclass(option, BaseModel)]


def _by_kind(annotation: Any) -> dict[str, type[Any]]:
    """`kind` -> specification, for the specifications of an annotation that have a `kind`."""
    with_kind = [model for model in models(annotation) if "kind" in model.model_fields]
    return {str(model.model_fields["kind"].default): model for model in with_kind}


def _options(annotation: Any) -> list[Any]:
    """The types of a union or of a family of kinds; otherwise the annotation itself, without `Annotated`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _options(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [option for part in get_args(annotation) for option in _options(part)]
    kinds = getattr(annotation, "kinds", None) if "family" in getattr(annotation, "__dict__", ()) else None
    return list(kinds().values()) or [annotation] if kinds else [annotation]


def _follow(kind: Any, loc: tuple[int | str, ...], data: Any) -> tuple[tuple[str, ...], Any]:
    """Translate the location of a pydantic error.

    Pydantic inserts the member of a union into the location: if the field `drift` accepts several kinds, the location
    of a wrong nu is ("drift", "power_law", "nu"), while the user wrote drift.nu.

    Args:
        kind: the specification, or annotation, that was validated.
        loc: location of the error.
        data: what the user wrote.

    Returns:
        The keys that the user wrote, and the annotation of the value there.
    """
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
    """The keys with the alias that the user wrote in place of the keys that it stands for."""
    for alias, targets in getattr(model, "aliases", {}).items():
        for target in (tuple(target.split(".")) for target in targets):
            if isinstance(data, dict) and alias in data and keys[: len(target)] == target:
                return (alias, *keys[len(target) :])
    return keys


def _written(data: Any, keys: tuple[str, ...]) -> Any:
    """The value that the user wrote at these keys, or `_NOTHING`."""
    for key in keys:
        if not isinstance(data, dict) or key not in data:
            return _NOTHING
        data = data[key]
    return data["value"] if isinstance(data, dict) and "value" in data else data


def _reason(group: list[Any], expected: Any) -> str:
    """Fault and remedy of one key, from the errors of all members of a union."""
    if len(group) == 1:
        return _single(group[0], expected)
    alternatives = dict.fromkeys(_requirement(entry, expected)[0] for entry in group)
    if "" in alternatives:
        return _single(group[0], expected)
    return f"must be {' or '.join(alternatives)}; correct it"


def _single(entry: Any, expected: Any) -> str:
    """Fault and remedy of one error of pydantic."""
    match entry["type"]:
        case "missing":
            return "is missing; add it"
        case "union_tag_not_found":
            return f"is missing; add kind = {_kinds(expected)}"
        case "union_tag_invalid":
            return f"is not a kind; {suggest(str(entry['ctx']['tag']), list(_by_kind(expected)))}"
        case "extra_forbidden":
            return "is not a key here; leave it out"
        case _:
            requirement, remedy = _requirement(entry, expected)
    if requirement:
        return f"must be {requirement}; {remedy}"
    message = str(entry["msg"]).removeprefix("Value error, ")
    has_remedy = entry["type"] == "value_error"  # raised by a validator of this package
    return message if has_remedy else f"{message[:1].lower()}{message[1:]}; correct it"


def _requirement(entry: Any, expected: Any) -> tuple[str, str]:
    """What the value must be, and the remedy; ('', '') for errors that keep pydantic's message."""
    kind, context = entry["type"], entry.get("ctx", {})
    kind = "finite_number" if kind in _BOUNDS and entry["input"] != entry["input"] else kind  # NaN is not itself
    if kind in _BOUNDS:
        bound, remedy = _BOUNDS[kind]
        numbers = {name: _number(limit) for name, limit in context.items() if isinstance(limit, (int, float))}
        return bound.format(**numbers), remedy
    if kind in ("float_type", "int_type") and isinstance(entry["input"], str) and not _NUMBER.fullmatch(entry["input"]):
        return _TYPES[kind][0], "write the number alone, without unit and quotes"
    if kind in _TYPES:
        return _TYPES[kind][0], _for_value(entry["input"], kind) or _TYPES[kind][1]
    if kind == "literal_error":
        return str(context["expected"]), _closest(entry["input"], expected)
    if kind in ("model_type", "model_attributes_type"):
        library = next((each.catalog_kind for each in _options(expected) if getattr(each, "catalog_kind", "")), "")
        kinds = "" if getattr(expected, "default_kind", "") else _kinds(expected)
        table = f"a table with kind = {kinds}" if kinds else "a table"
        named = str(entry["input"]) in _by_kind(expected)
        remedy = f"write {{ kind = {shown(entry['input'])} }}" if named else "write { KEY = VALUE }"
        return (f"{table} or the name of a library {library}" if library else table), remedy
    return "", ""


def _for_value(value: Any, kind: str) -> str:
    """The remedy for this value where pydantic reports an error of this type; empty if the usual one works."""
    if isinstance(value, (list, tuple, dict)) and kind not in ("tuple_type", "list_type", "dict_type"):
        return "give one value; only [sweep] takes several"
    if kind == "int_type" and isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"write {shown(int(value))}" if value >= 1 else "write a whole number"
    if kind in ("int_type", "float_type") and isinstance(value, str) and re.fullmatch(r"\s*[-+]?0[0-9]+\s*", value):
        return "write it without leading zeros"
    return ""


def _number(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def _kinds(expected: Any) -> str:
    """The kinds that are accepted, as text: 'a', 'b' or 'c'."""
    *others, last = [repr(kind) for kind in _by_kind(expected)] or [""]
    return f"{', '.join(others)} or {last}" if others else last


def _closest(word: Any, expected: Any) -> str:
    """The remedy for a value that is not one of the literals of an annotation."""
    words = [str(value) for option in _options(expected) if get_origin(option) is Literal for value in get_args(option)]
    hint, known, _ = suggest(str(word), words).partition("known: ")
    return hint.strip() if hint and known else "take one of them" if len(words) > 1 else "take it"
