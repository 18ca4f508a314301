"""Formulas as MathML, which browsers draw by themselves: no script, no font, no network."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx


def _markup(node: nodes.Element, block: bool) -> str:
    try:
        return str(tex2mathml(node.astext(), as_block=block))
    except Exception as error:  # what the converter does not know ends the build instead of a page with a gap
        raise ValueError(f"formula {node.astext()!r}: {error}") from error


def inline(writer: Any, node: nodes.Element) -> None:
    """Write a formula of a line of text."""
    writer.body.append(_markup(node, block=False))
    raise nodes.SkipNode


def display(writer: Any, node: nodes.Element) -> None:
    """Write a formula that stands by itself; it scrolls within its own box on narrow screens."""
    writer.body.append(f'<div class="formula" tabindex="0">{_markup(node, block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Make `html_math_renderer = "mathml"` known."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
