"""Small files, small functions: what does not fit is two things."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "training", "examples", "benchmarks", "reproductions", "scripts")
FILE_LINES = 400
FUNCTION_LINES = 60


def python_files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def too_long(path: Path) -> Iterator[str]:
    text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
    if (lines := len(text.splitlines())) > FILE_LINES:
        yield f"{name}: {lines} lines, at most {FILE_LINES}; split it by question answered"
    for node in ast.walk(ast.parse(text, str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield f"{name}:{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES}; name its steps"


def test_files_and_functions_are_small() -> None:
    files = python_files()
    assert any("src" in path.parts for path in files), "found no source to measure"
    violations = [line for path in files for line in too_long(path)]
    assert not violations, "\n" + "\n".join(violations)
