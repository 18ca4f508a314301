"""Every folder says which question it answers, and holds no files that import each other in a circle."""

import ast
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from ohmformer.study.results.key import ANSWERING
from tests.house.test_imports import imported

PACKAGE = Path(__file__).parents[2] / "src" / "ohmformer"
DATA = {"library"}
"""Folders without code."""

NO_ANSWERS = {
    *(
        "errors",
        "units",
        "wording",
        "quantities",
        "textfiles",
        "provenance",
        "key_search",
        "lost_lines",
        "catalog",
    ),
    *("study.spec", "dataflow.spec", "workload.spec"),
    *("terminal.plain", "terminal.progress"),
    *("study.results.costs", "study.results.key", "study.results.part", "study.results.record"),
    "study.results.spec",
    "study.results.candidates",
    "study.results.requirements",
    "study.results.search",
    "study.results.trials",
}
"""What turns files into settings, which are part of every key as values, what names them, what makes keys and types of
results, and what draws progress bars."""


def modules() -> dict[str, Path]:
    """Dotted name within the package -> file; `__init__` files under the names of their folders."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix("."): path
        for path in PACKAGE.rglob("*.py")
    }


def for_types_only(node: ast.AST) -> bool:
    """True for `if TYPE_CHECKING:`, whose imports are never executed."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all nodes below it, but for what is imported for types only."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not for_types_only(child):
            yield from executed(child)


def imports_of(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules of the package that a file imports, wherever in the file the import stands."""
    package = ".".join(["ohmformer", *path.relative_to(PACKAGE).parent.parts])
    for node in executed(ast.parse(path.read_text(encoding="utf-8"))):
        for name in imported(node, package):
            parts = name.split(".")[1:] if name.split(".")[0] == "ohmformer" else []
            found = [".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in known]
            yield from found[:1]


def graph() -> dict[str, set[str]]:
    """Module -> what it imports; facades, which import on demand by name, are not part of it."""
    known = modules()
    return {name: set(imports_of(path, known)) - {name} for name, path in known.items() if name}


def test_no_files_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle of imports: {' -> '.join(error.args[1])}") from None


def test_every_folder_says_in_one_sentence_which_question_it_answers() -> None:
    folders = sorted({path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE})
    wrong = []
    for folder in folders:
        doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        if "?" not in doc.split("\n\n")[0]:
            wrong.append(f"{folder.relative_to(PACKAGE)}: {doc!r}")
    assert not wrong, "begin the docstring of __init__.py with the question of the folder: " + "; ".join(wrong)


def not_in_keys(start: str, patterns: Iterable[str]) -> list[str]:
    """Modules that a module imports, directly or not, and whose code no key holds although it may change answers.

    Args:
        start: name of the module.
        patterns: of the files whose code a key holds.
    """
    known, imports = modules(), graph()
    reached, todo = set[str](), [start]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += imports.get(name, ())
    assert len(reached) > 50, "the walk over imports found next to nothing"
    covered = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    return sorted(name for name in reached - NO_ANSWERS if known[name] not in covered)


def test_keys_cover_every_module_that_computes_answers() -> None:
    missing = not_in_keys("study.evaluate_point", ANSWERING)
    assert not missing, f"{missing} compute answers, but their code is not part of result keys (study/results/key.py)"
