"""Where memory is full, a line says so, whichever library found it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from ohmformer.cli import entry
from ohmformer.errors import BadInput
from ohmformer.terminal.memory import lacks_memory


@pytest.mark.parametrize("ask", [lambda: torch.empty(10**15), lambda: np.empty(10**15), lambda: bytearray(10**15)])
def test_libraries_that_get_no_memory_are_understood(ask: Any) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        ask()
    assert lacks_memory(caught.value)
    wrapped = BadInput("the model fails")
    wrapped.__cause__ = caught.value
    assert lacks_memory(wrapped)


def test_other_errors_are_none_of_memory() -> None:
    for error in (RuntimeError("shapes differ"), BadInput("x = 1: is wrong"), KeyError("memory")):
        assert not lacks_memory(error)


def test_a_command_without_memory_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ImportError("libtorch_cpu.so: failed to map segment from shared object")

    monkeypatch.setattr(entry, "app", refuse)
    monkeypatch.setattr(sys, "argv", ["ohmformer", "list"])
    assert entry.main() == 2
    assert capsys.readouterr().err.startswith("ohmformer: memory is full; ")
