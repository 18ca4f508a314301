"""Words of messages: the article of a noun, and the keywords of a class."""

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
