"""Modules of a folder of reproductions, imported as they import each other when they run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest


@contextmanager
def imported(folder: Path, names: Sequence[str]) -> Iterator[list[ModuleType]]:
    """Context of the modules with these names; afterward they are forgotten, with those of `common`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder.parent))
        patch.syspath_prepend(str(folder))
        yield [importlib.import_module(name) for name in names]
        for name in [name for name in sys.modules if name in names or name.split(".")[0] == "common"]:
            sys.modules.pop(name)
