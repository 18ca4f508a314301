"""The directive `public-names`: documents every name of one group of docs/api.md from its docstring."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.inspect import signature, stringify_signature

import ohmformer as of

API = Path(__file__).parents[1] / "api.md"


def names_of(group: str) -> list[str]:
    """Public names below the heading `group` of docs/api.md, in the order of the page."""
    sections = re.split(r"^## ", API.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = [section for section in sections if section.split("\n", 1)[0] == group]
    if len(found) != 1:
        raise ValueError(f"docs/api.md has {len(found)} headings {group!r}, not one")
    return re.findall(r"^\| `(\w+)` \|", found[0], flags=re.MULTILINE)


def _directive(name: str) -> list[str]:
    value = getattr(of, name)
    if not inspect.isclass(value):
        return [f".. autofunction:: ohmformer.{name}", ""]
    if issubclass(value, Exception):
        return [f".. autoexception:: ohmformer.{name}", ""]
    return [f".. autoclass:: ohmformer.{name}", "   :members:", ""]


class PublicNames(SphinxDirective):
    """`{public-names} GROUP` in a page."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """The nodes of all names of the group."""
        self.env.note_dependency(str(API))
        lines = ["```{eval-rst}", *(line for name in names_of(self.arguments[0]) for line in _directive(name)), "```"]
        box = nodes.container()
        self.state.nested_parse(StringList(lines, source=str(API)), self.content_offset, box)
        return box.children


def _typed(app: Sphinx, what: str, name: str, value: Any, options: Any, args: str | None, returns: str | None) -> Any:
    """Functions and methods with their types as they are written; fields of specs say theirs in words."""
    if what not in ("function", "method") or args is None:
        return None
    text = stringify_signature(signature(value, bound_method=what == "method"), unqualified_typehints=True)
    found, _, returned = text.rpartition(" -> ")
    return (found, returned) if found else (text, None)


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the directive known."""
    app.add_directive("public-names", PublicNames)
    app.connect("autodoc-process-signature", _typed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
