"""Small files, functions and folders: what does not fit is two things. Here, and only here, stand the limits."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "training", "examples", "benchmarks", "reproductions")
FILE_LINES = 400
FUNCTION_LINES = 60
FOLDER_FILES = 16


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


def test_folders_are_small() -> None:
    folders = {path.parent for path in python_files()}
    sizes = {str(folder.relative_to(ROOT)): len(list(folder.glob("[!_]*.py"))) for folder in folders}
    large = {name: count for name, count in sizes.items() if count > FOLDER_FILES}
    assert not large, f"more than {FOLDER_FILES} files: {large}; split by question answered"


def test_the_page_for_contributors_says_the_same() -> None:
    page = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    functions_and_folders = f"functions of at most {FUNCTION_LINES}, folders of at most {FOLDER_FILES} files"
    assert f"files of at most {FILE_LINES} lines, {functions_and_folders}" in page
