"""Runs of the training script, as its command line starts them."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

OPTIONS = ("--size", "16", "--held-out", "6", "--batch", "4", "--epochs", "2", "--every", "3", "--threads", "1")
STEPS = 10  # 2 epochs of 18 photographs, 4 at a time


def start(script: ModuleType, data: Path, weights: Path, out: Path, *more: str) -> int:
    """The exit status of a run."""
    places = ("--data", str(data), "--weights", str(weights), "--out", str(out))
    status: int = script.main([*places, *OPTIONS, *more])
    return status


def stopped(script: ModuleType, after: int, *arguments: Any) -> None:
    """Such a run that is interrupted after so many steps, with other random numbers drawn since."""
    calls: list[int] = []

    def interrupted(*of_step: Any) -> float:
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        loss: float = step(*of_step)
        return loss

    step = script.gradient_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "gradient_step", interrupted)
        assert start(script, *arguments) == 130
    torch.rand(7)


def record(out: Path) -> dict[str, Any]:
    """What does not depend on the clock."""
    content: dict[str, Any] = json.loads((out / "result.json").read_text())
    return {name: value for name, value in content.items() if name not in ("minutes", "images_per_second_forward")}


def refused(
    script: ModuleType, data: Path, weights: Path, out: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> str:
    """The one line of an error."""
    assert start(script, data, weights, out, *more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line
