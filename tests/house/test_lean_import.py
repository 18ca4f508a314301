"""Importing torch takes seconds: the front door, the CLI's help and every specification do without it."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "ohmformer"
NAMED = ("units", "errors", "schema", "catalog", "device.spec", "array.spec", "mapping.planning", "hardware.spec")
FREE_FOLDERS = ("stats", "hardware", "workload", "cost", "dataflow")


def torch_free_modules() -> list[str]:
    """The named ones, every `spec` and everything in the folders that the cost verbs use."""
    found = [*PACKAGE.rglob("spec.py"), *(path for folder in FREE_FOLDERS for path in PACKAGE.glob(f"{folder}/*.py"))]
    dotted = {".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for path in found}
    return [f"ohmformer.{name}" for name in sorted(dotted | set(NAMED))]


def run(code: str, *arguments: str) -> str:
    """Output of a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_front_door_and_the_specifications_import_no_torch() -> None:
    code = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "torch" in sys.modules:
        print(name)
        break
"""
    guilty = run(code, "ohmformer", *torch_free_modules()).strip()
    assert not guilty, f"importing {guilty} imports torch; move what needs it to another file, or into the function"


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["cost", "--help"]], ids=" ".join)
def test_help_imports_no_torch(arguments: list[str]) -> None:
    code = """
import sys
from ohmformer.cli import main
try:
    status = main()
except SystemExit as stop:
    status = stop.code
assert not status, status
print("torch imported:", "torch" in sys.modules)
"""
    output = run(code, *arguments)
    assert "Usage" in output
    assert output.rstrip().endswith("torch imported: False")
