"""Mutations of text that people write: slips of the pen, wrong types, absurd numbers, hostile characters, damage."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

VALUES = (
    *("1e300", "1e-300", "-1", "nan", "inf", "-inf", "0", "1", "2", "1000000000000000000"),
    *(f"1{400 * '0'}", f"{5000 * '9'}", "true", "[]", "[1]", "{}", "[[]]", "[inf]", "['a']", "{ a = 1 }"),
    *("{ value = 3 }", "{ base = 'x' }", "1979-05-27", '""', '"x"', '"none"', '"1e300 S"', '"1e-400 s"'),
    *('"1e1000000 J"', '"3 %"', '"-5 uS"', '"10 uS"', '"1 Hz"', '"nan"', '"inf"', '"mine.toml"', '"gone.toml"', '"."'),
    *('"/dev/zero"', f'"{300 * "a"}.toml"', f'"{4000 * "1"} a b"', '"\\u001b[31m"', '"\\u202e"', '"\\u0000"'),
    *('"\\n\\n"', '"$\\\\frac{$"', f"{600 * '['}{600 * ']'}", "{ value = nan, source = 3 }", "{ kind = 'none' }"),
    *("{ kind = [1] }", "{ kind = {} }", "{ value = { value = 1 } }"),
)  # fmt: skip
"""Values that anything may be set to."""

JUNK = (
    "\x1b[2J",
    "\u202e",
    "\x00",
    "\ufeff",
    "\t",
    "\r",
    "\x85",
    "\u2028",
    "'",
    '"',
    "[",
    "]",
    "{",
    "}",
    "=",
    "#",
    ".",
)

_ASSIGNED = re.compile(r"=\s*(?P<value>\"[^\"\n]*\"|'[^'\n]*'|\[[^\[\]\n]*\]|[^\s,{}\[\]\"'\n]+)")
_JSON = re.compile(r":\s*(?P<value>\"[^\"\n]*\"|-?[0-9.eE+-]+|\{\}|\[\])")


def value(text: str, random: Random) -> str:
    """One value replaced by another one."""
    found = [*_ASSIGNED.finditer(text), *_JSON.finditer(text)]
    if not found:
        return random.choice(VALUES)
    match = random.choice(found)
    return text[: match.start("value")] + random.choice(VALUES) + text[match.end("value") :]


def number(text: str, random: Random) -> str:
    """A digit more, a sign or an exponent."""
    found = list(re.finditer(r"[0-9]+", text))
    if not found:
        return text
    match = random.choice(found)
    return (
        text[: match.end()]
        + random.choice(("0", "000000", "e99", "e-99", "e9999", ".5", "-", " "))
        + text[match.end() :]
    )


def line(text: str, random: Random) -> str:
    """A line left out, written twice, or moved."""
    lines = text.splitlines()
    if not lines:
        return text
    at = random.randrange(len(lines))
    taken = lines[at] if random.random() < 0.3 else lines.pop(at)
    if random.random() < 0.6:
        lines.insert(random.randint(0, len(lines)), taken)
    return "\n".join(lines) + "\n"


def key(text: str, random: Random) -> str:
    """A key misspelled, nested or without end."""
    found = list(re.finditer(r"[A-Za-z_]{2,}(?=\s*[=:.\]])", text))
    if not found:
        return text
    match = random.choice(found)
    word = match.group()
    other = random.choice(
        (word[:-1], f"{word}x", f"{word}.{word}", f"{word}." * 60 + word, "base", "kind", "value", '"a b"')
    )
    return text[: match.start()] + other + text[match.end() :]


def junk(text: str, random: Random) -> str:
    """Hostile characters put in or taken out."""
    at = random.randint(0, len(text))
    if random.random() < 0.3:
        return text[:at] + text[at + random.randint(1, 20) :]
    return text[:at] + random.choice(JUNK) * random.choice((1, 1, 1, 700)) + text[at:]


def splice(text: str, random: Random) -> str:
    """A piece of the text once more, elsewhere."""
    start = random.randint(0, len(text))
    piece = text[start : start + random.randint(1, 80)]
    at = random.randint(0, len(text))
    return text[:at] + piece + text[at:]


MUTATIONS: tuple[Callable[[str, Random], str], ...] = (value, value, value, value, number, line, key, junk, splice)


def mutated(text: str, random: Random) -> str:
    """The text after one to three mutations."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        text = random.choice(MUTATIONS)(text, random)
    return text


def encoded(text: str, random: Random) -> bytes:
    """The text as bytes: nearly always UTF-8, sometimes with a byte-order mark, in UTF-16 or damaged."""
    match random.randrange(40):
        case 0:
            return text.encode("utf-8-sig", "surrogatepass")
        case 1:
            return text.encode("utf-16", "surrogatepass")
        case 2:
            return text.encode("latin-1", "replace") + b"\xff"
    return text.encode("utf-8", "surrogatepass")
