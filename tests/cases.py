"""Cases of parametrized tests of which a few run by default and all in the complete run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def quick_first(cases: Iterable[Any], quick: int) -> list[Any]:
    """The cases of a test with one argument; those after the first `quick` are marked slow."""
    return [pytest.param(case, marks=() if number < quick else pytest.mark.slow) for number, case in enumerate(cases)]
