"""The documentation site: Sphinx reads the Markdown of this folder (MyST); `make docs` builds it into build/docs.

Nothing is fetched when a page is viewed: fonts are those of the system, formulas are MathML, search runs in the page.
"""

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_site"))

_package = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "Ohmformer"
author = "The Ohmformer authors"
project_copyright = author
release = version = _package["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "mathml",
    "outside",
    "public_names",
]
exclude_patterns = ["_site/README.md"]
templates_path: list[str] = []

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # blocks of commands with their output have no lexer of their own

default_role = "code"
autodoc_class_signature = "separated"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"Ohmformer {release}"
html_static_path = ["_site/static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
pygments_style = "default"
pygments_dark_style = "github-dark"
