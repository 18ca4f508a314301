"""The import order: a folder imports only what lies to its left, and the two halves never meet.

Every import counts: relative ones, those inside functions, those for type checking only, and `import_module("...")`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "ohmformer"

ROOT_MODULES = {
    *(
        "catalog",
        "changed_copy",
        "deferred_checks",
        "errors",
        "key_search",
        "lost_lines",
        "patch",
        "precision",
        "provenance",
        "quantities",
        "registry",
        "schema",
        "textfiles",
        "units",
        "wording",
    ),
}
"""Left of all folders; they may import each other."""

ORDER = (
    *(
        "streams",
        "stats",
        "device",
        "fitting",
        "array",
        "mitigation",
        "mapping",
        "hardware",
        "workload",
        "capture",
        "routing",
        "models",
        "tasks",
    ),
    *("terminal", "nn", "tracing", "cost", "dataflow"),
    *("study", "validation", "report", "cli"),
)
"""Folders and the command line, from left to right."""

APART = {frozenset(("nn", other)) for other in ("tracing", "cost", "dataflow")}
"""The accuracy half and the cost half."""

ROOMS_OF_NN = (
    *({"shared"}, {"operands"}, {"modules"}, {"calls"}, {"checks"}, {"convert"}),
    {"calibration", "saving", "monte_carlo", "variation"},
)
"""Rooms and single files of `nn`, from left to right; those of one set do not import each other's room."""

FACADE = {"__init__", "__main__"}
"""Root files that gather public names: they may import everything, and nothing imports them."""


def home(module: str) -> str:
    """'ohmformer.device.spec' -> 'device'; 'ohmformer' -> '__init__'; a public name's home is the facade too."""
    part = (module.split(".") + ["__init__"])[1]
    exists = (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file()
    return part if exists or part in ORDER else "__init__"


def imported(node: ast.AST, package: str) -> Iterator[str]:
    """Absolute names of the modules that a statement or call imports; `package` is where relative ones start."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            parents = package.split(".")[: len(package.split(".")) - level + 1] if level else []
            base = ".".join([*parents, *([module] if module else [])])
            yield from (f"{base}.{alias.name}" for alias in names)
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            yield name


def fault(importer: str, target: str) -> str | None:
    """What is wrong with one part of the package importing another, if anything."""
    if importer in FACADE or importer == target:
        return None
    if target in FACADE:
        return "import the name from the module that defines it, not from the package's front door"
    if importer in ROOT_MODULES:
        return None if target in ROOT_MODULES else "a root module imports no folder"
    if target in ROOT_MODULES:
        return None
    if frozenset((importer, target)) in APART:
        return "the accuracy half and the cost half never import each other; they meet in hardware, mapping, workload"
    if importer in ORDER and target in ORDER and ORDER.index(target) > ORDER.index(importer):
        return f"{target} lies to the right of {importer} in: {' '.join(ORDER)}"
    return None


def faults(path: Path) -> Iterator[str]:
    place = path.relative_to(PACKAGE)
    importer = place.parts[0].removesuffix(".py")
    package = ".".join(["ohmformer", *place.parent.parts])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        for name in imported(node, package):
            if name.split(".")[0] == "ohmformer" and (reason := fault(importer, home(name))):
                yield f"{place}:{node.lineno}: imports {name}: {reason}"


def test_a_folder_imports_only_folders_to_its_left() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert files, f"found no source in {PACKAGE}"
    violations = [line for path in files for line in faults(path)]
    assert not violations, "\n" + "\n".join(violations)


def test_every_part_of_the_package_has_its_place_in_the_order() -> None:
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    unknown = sorted(parts - ROOT_MODULES - FACADE - set(ORDER))
    assert not unknown, (
        f"{unknown}: not in the import order. Add a folder to ORDER and a root module to ROOT_MODULES or ORDER, both in"
        f" {Path(__file__).name}, where it imports only what lies to its left. (library/ holds data, no code.)"
    )


def rank_in_nn(module: str) -> int:
    """Place of a module of `nn` in `ROOMS_OF_NN`."""
    room = module.split(".")[2]
    return next(rank for rank, rooms in enumerate(ROOMS_OF_NN) if room in rooms)


def test_a_room_of_nn_imports_only_rooms_to_its_left() -> None:
    wrong = []
    for path in sorted((PACKAGE / "nn").rglob("[!_]*.py")):
        module = ".".join(["ohmformer", *path.relative_to(PACKAGE).with_suffix("").parts])
        room, rank = module.split(".")[2], rank_in_nn(module)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            for name in imported(node, module.rpartition(".")[0]):
                if not name.startswith("ohmformer.nn.") or name.split(".")[2] == room:
                    continue
                if rank_in_nn(name) > rank or {room, name.split(".")[2]} <= ROOMS_OF_NN[-1]:
                    wrong.append(f"{module} imports {name}")
    assert not wrong, "; ".join(wrong)
