"""Makes text of users harmless: names, labels and paths may hold codes that control a terminal."""

from __future__ import annotations

import re

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

HARMFUL = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f"  # control characters but the end of a line: colors, titles, clipboard, clear screen
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks of direction, which show text in another order
    "\u2028\u2029\ufeff\ufff9-\ufffb\ufffe\uffff"  # other ends of lines, and marks that nobody sees
    "\U000e0000-\U000e007f"  # tags: invisible text
    "\ud800-\udfff]"  # halves of characters, such as of a file name that is not UTF-8: cannot be encoded
)

LONGEST = 1500
"""Characters of a message; of a longer one the middle is left out."""


def clean(text: str) -> str:
    """A text with each harmful character replaced by the Unicode replacement character, and tabs by spaces."""
    return HARMFUL.sub(REPLACEMENT, text.replace("\t", " "))


def one_line(text: str) -> str:
    """A message in one line, harmless and not too long."""
    line = clean(" ".join(text.split()))
    if len(line) <= LONGEST:
        return line
    return f"{line[: LONGEST * 2 // 3]} [...] {line[-LONGEST // 3 :]}"


def escaped(json_text: str) -> str:
    r"""JSON that means the same, with harmful characters written as \uXXXX."""
    return HARMFUL.sub(_escape, json_text)


def _escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
