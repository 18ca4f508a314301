"""The training loop of the scripts here: options, steps that can be stopped, what is written whole or not at all."""

from __future__ import annotations

import argparse
import json
import math
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from checkpoints import Training, differences
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from ohmformer.errors import BadInput

CLIP_NORM = 1.0
LOSS_STEPS = 20
"""Number of steps that one point of the recorded loss curve averages."""


def add_settings(parser: argparse.ArgumentParser, settings: type[Any]) -> None:
    """One option for each field of a class of settings, with its default and the help in its metadata."""
    for each in fields(settings):
        option, words = f"--{each.name.replace('_', '-')}", each.metadata["help"]
        if isinstance(each.default, bool):
            parser.add_argument(option, action="store_true", help=words)
        else:
            kind, usual = each.metadata.get("type", type(each.default)), each.default
            told = words if usual is None else f"{words}; default: {usual}"
            parser.add_argument(option, type=kind, default=usual, help=told)


def check_numbers(whole: dict[str, int], shares: dict[str, float], lr: float, seed: int) -> None:
    """Refuse numbers that make no run: whole ones below 1, shares outside of [0, 1), a rate that is not above 0.

    Raises:
        BadInput: one is out of its range.
    """
    for name, count in whole.items():
        if count < 1:
            raise BadInput(f"--{name} {count}: must be 1 or more; raise it")
    if not (math.isfinite(lr) and lr > 0):
        raise BadInput(f"--lr {lr}: must be above 0; 5e-5 is usual")
    for name, value in shares.items():
        if not 0 <= value < 1:
            raise BadInput(f"--{name} {value}: must be from 0 to below 1; correct it")
    if seed < 0:
        raise BadInput(f"--seed {seed}: must be 0 or more; raise it")


def exit_status(run: Callable[[], None]) -> int:
    """Of a run: 0, 2 for what cannot be used, said in one line, or 130 for one that was stopped."""
    try:
        run()
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def finished(record: Path, identity: dict[str, Any]) -> bool:
    """Whether the record of this very run is there already.

    Raises:
        BadInput: it is that of another run, or none.
    """
    if not record.exists():
        return False
    try:
        stored = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{record}: cannot be read ({error}); remove it, or choose another --out") from error
    differences(record, stored, identity)
    return True


def versions() -> dict[str, str]:
    """Versions of the packages on which the rounding of the arithmetic depends."""
    return {
        "python": platform.python_version(), "torch": str(torch.__version__), "transformers": transformers.__version__,
    }  # fmt: skip


def make_optimizer(model: nn.Module, lr: float, decay: float) -> torch.optim.Optimizer:
    """AdamW that lets only matrices decay."""
    matrices = [each for each in model.parameters() if each.ndim == 2]
    others = [each for each in model.parameters() if each.ndim != 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def learning_rate(step: int, steps: int, settings: Any) -> float:
    """It rises to `settings.lr` over the share `settings.warmup`, then falls like a cosine, to zero at the end."""
    rising = max(1, round(settings.warmup * steps))
    highest: float = settings.lr
    if step < rising:
        return highest * (step + 1) / rising
    return highest * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def go_on(training: Training, steps: int, settings: Any, every: int, take_step: Callable[[int], float]) -> None:
    """Take all steps that are still to do, with a checkpoint after every `every` steps.

    Args:
        training: its model is in the mode that steps are taken in.
        steps: of the whole run.
        settings: with lr and warmup.
        every: steps between checkpoints.
        take_step: the number of a step to its loss.

    Raises:
        BadInput: a step cannot be taken, or a checkpoint cannot be written.
    """
    started, before = time.monotonic(), training.seconds
    with training.varied(), reporting(training, steps) as report:
        while (step := training.step) < steps:
            for group in training.optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, settings)
            training.losses.append(take_step(step))
            training.step, training.seconds = step + 1, before + time.monotonic() - started
            if training.step % every == 0 or training.step == steps:
                training.save()
            report()


def descend(training: Training, loss: Tensor, lr: float) -> float:
    """Change the parameters by the gradients of a loss; returns its value.

    Raises:
        BadInput: the loss is not finite.
    """
    if not loss.isfinite():
        raise BadInput(f"--lr {lr}: the loss of step {training.step + 1} is {loss.item()}; lower the rate")
    training.optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(training.model.parameters(), CLIP_NORM)
    training.optimizer.step()
    return loss.item()


@contextmanager
def reporting(training: Training, steps: int) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error, or a line now and then where that is not a terminal; yields what to call."""
    console = Console(stderr=True)
    columns = (
        TextColumn("steps"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("steps", total=steps, completed=training.step, loss="")

        def report() -> None:
            loss = f"loss {np.mean(training.losses[-LOSS_STEPS:]):.3f}"
            bar.update(task, completed=training.step, loss=loss)
            if not console.is_terminal and training.step % LOSS_STEPS == 0:
                print(
                    f"step {training.step}/{steps}: {loss}, {training.seconds / 60:.1f} min",
                    file=sys.stderr,
                    flush=True,
                )

        yield report


def loss_curve(losses: list[float]) -> dict[str, Any]:
    """Means of `LOSS_STEPS` steps each."""
    parts = [losses[start : start + LOSS_STEPS] for start in range(0, len(losses), LOSS_STEPS)]
    return {"steps": LOSS_STEPS, "means": [round(float(np.mean(part)), 4) for part in parts]}


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, which becomes the target once all is written.

    Raises:
        BadInput: it cannot be written.
    """
    draft = target.with_name(f"{target.name}.part")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    except OSError as error:
        raise BadInput(f"{target}: cannot be written ({error}); make room, or choose another --out") from error
