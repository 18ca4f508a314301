"""A page as one HTML file that opens offline: style, plotly.js and numbers are inside, nothing is loaded.

Text of files is escaped by the templates. A policy in the page lets browsers run no script but the two of this module,
which it names by their hashes: markup that got in nevertheless could run nothing.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ohmformer.report.page.content import Page
from ohmformer.report.page.plotly_figure import plotly_figure
from ohmformer.terminal.files import PAGE
from ohmformer.terminal.plain import clean


def html_page(page: Page) -> str:
    """A page as HTML."""
    script, library = _own("page.js"), _plotly() if page.charts else ""
    template = _environment().get_template("page.html.jinja")
    return PAGE.decode() + template.render(
        page=page,
        figures={chart.name: plotly_figure(chart) for chart in page.charts},
        style=Markup(_own("page.css")),
        library=Markup(library),
        script=Markup(script),
        policy=_policy(script, library),
    )


def _policy(*scripts: str) -> str:
    """The content security policy of a page that runs these scripts alone."""
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts if script)
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {hashes}"


def _digest(text: str) -> str:
    return b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    loader = PackageLoader("ohmformer.report", "page")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=_harmless)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False}
    return environment


def _harmless(value: Any) -> Any:
    """Text without control characters; what is markup already stays."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _own(name: str) -> str:
    return (resources.files("ohmformer.report") / "page" / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """The text of plotly.js, from the Python package."""
    return (resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
