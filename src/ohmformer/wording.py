"""Words of messages: the article of a noun, the keywords of a class, and faults that name their place again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydantic.fields import FieldInfo

MOST_KEYWORDS = 6
"""Maximum number of keywords that a message shows."""

_SPELLED = re.compile(r"[A-Z]{2}(?![a-z])|[A-Z][0-9]")
"""Beginning of a word that is read letter by letter, such as LSTM, MLPModel or F16."""
_VOWEL_NAMES = frozenset("AEFHILMNORSX")
"""Letters whose names begin with a vowel."""
_VOWEL = re.compile(r"(?!eu|once|one(?![a-z]))[aeio]|un(?!i(?!n))|n[dn]", re.IGNORECASE)
"""Beginning of other words with a vowel sound: int, unknown and ndarray, but not uint8, unit, euler or one."""

_VALUE = r"'[^']*'|-?[0-9.]+(?:e[-+]?[0-9]+)?"
_AGAIN = re.compile(rf"(?: = (?:(?:{_VALUE})(?: [A-Za-z%]+)?: |(?:{_VALUE}) (?=holds |is |has |needs |reach))|: )")
"""What may stand behind a key that a fault names again: its value, then a colon or the verb of the sentence."""


def with_article(noun: str) -> str:
    """A noun, such as the name of a type, behind the article that its sound needs: 'an int', 'a Tensor', 'an LSTM'."""
    first = noun.lstrip("'\"_")
    spelled = _SPELLED.match(first)
    vowel = first[:1] in _VOWEL_NAMES if spelled else bool(_VOWEL.match(first))
    return f"{'an' if vowel else 'a'} {noun}"


def keywords(name: str, fields: Sequence[str], infos: Mapping[str, FieldInfo]) -> str:
    """The call of a class with its keywords, required ones first, such as 'KVClip(alpha=..., beta=...)'.

    Args:
        name: name of the class.
        fields: names of its fields; `kind` is left out, since it has one value.
        infos: field -> what pydantic knows about it.
    """
    names = sorted((field for field in fields if field != "kind"), key=lambda field: not infos[field].is_required())
    more = ", ..." if len(names) > MOST_KEYWORDS else ""
    return f"{name}({', '.join(f'{field}=...' for field in names[:MOST_KEYWORDS])}{more})"


def without_place(fault: str, keys: Sequence[str], *, value: bool) -> str:
    """A fault without the place that it names again, such as 'change nothing' for 'writes = 10: change nothing'.

    Args:
        fault: the fault and the remedy.
        keys: path of keys that the message shows in front of them.
        value: True if the message shows the value, too; the fault keeps its own otherwise.
    """
    for first in range(len(keys)):
        path = ".".join(keys[first:])
        rest = fault.removeprefix(path)
        if rest == fault:
            continue
        if rest.startswith(".") and rest[1:2].isalpha():
            return rest[1:]
        again = _AGAIN.match(rest)
        if again and (value or again[0] == ": "):
            return rest[again.end() :]
    return fault
