"""Links to pages beside this folder, such as studies: the site offers them as files."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

LINK = re.compile(
    r"\]\(((?:\.\./)+(?:reproductions|benchmarks|examples|README|CONTRIBUTING|CHANGELOG)[^)#\s]*\.md)(?:#[^)]*)?\)"
)


def _as_files(app: Sphinx, name: str, source: list[str]) -> None:
    source[0] = LINK.sub(r"](path:\1)", source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Rewrite such links when a page is read."""
    app.connect("source-read", _as_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
