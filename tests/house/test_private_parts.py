"""Undocumented parts of PyTorch and transformers are used in one file each, so that a new version is one place to look.

The tables of a module (`_parameters`, ...) and `Tensor._version` may be read anywhere.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "ohmformer"
LIBRARIES = ("torch", "transformers")
HOMES = {PACKAGE / "capture" / "torch_private.py", PACKAGE / "models" / "hf_private.py"}


def dotted(node: ast.AST) -> str:
    """'torch._C.f' for the chain of attributes; empty for others."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def names_in(node: ast.AST) -> Iterator[str]:
    """Dotted names that a node imports or uses."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=str(module), names=names):
            yield from (f"{module}.{alias.name}" for alias in names)
        case ast.Constant(value=str(text)) if text.replace(".", "").replace("_", "").isalnum():
            yield text
        case ast.Attribute():
            yield dotted(node)


def is_private(name: str) -> bool:
    """True for a name below one of the libraries with a part that begins with one underscore."""
    first, *parts = name.split(".")
    return first in LIBRARIES and any(part.startswith("_") and not part.startswith("__") for part in parts)


def test_private_parts_are_used_in_one_file() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {name}"
        for path in sorted(set(PACKAGE.rglob("*.py")) - HOMES)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Constant | ast.Attribute)
        for name in names_in(node)
        if is_private(name)
    ]
    assert not wrong, "use a function of capture/torch_private.py or models/hf_private.py: " + "; ".join(wrong)
