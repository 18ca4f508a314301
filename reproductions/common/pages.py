"""Pages whose tables and sentences stand between markers, and words that all pages share."""

from __future__ import annotations

import re

from ohmformer.errors import BadInput
from ohmformer.report.verdict import Gain

MISSING = "not measured yet"
NOTHING = f"*{MISSING.capitalize()}.*"
"""What stands in place of a table without results."""


def filled(page: str, text: str, found: dict[str, str]) -> str:
    """The text of a page with every block between its markers.

    Args:
        page: name of the page, for messages.
        text: its text.
        found: marker -> block.

    Raises:
        BadInput: the page has a marker that is unknown.
    """

    def block(match: re.Match[str]) -> str:
        name = match[1]
        if name not in found:
            raise BadInput(f"{page}: marker {name!r} is unknown; use one of {', '.join(found)}")
        return f"<!-- {name} -->\n{found[name]}\n<!-- end {name} -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end \1 -->", block, text, flags=re.DOTALL)


def shown(gain: Gain) -> str:
    """A gain whose sign says better or worse, whichever way the metric counts."""
    show = gain.metric.show
    return f"{show(gain.mean, '+')} [{show(gain.low, '+')}, {show(gain.high, '+')}]"
