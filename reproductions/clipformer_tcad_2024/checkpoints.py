"""A training run that can be stopped at any moment: its state, and the file that it goes on from."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ohmformer.errors import BadInput
from ohmformer.nn.variation import Variation


@dataclass
class Training:
    """What changes from step to step, and which run it belongs to.

    Attributes:
        identity: settings, versions and digests; a checkpoint of another run is refused. Order, mirroring and learning
            rate follow from the seed, the settings and the number of the step, so they need no state of their own.
        file: of the checkpoint.
        variation: draws the noise of the crossbars that the model is on; it, too, needs only the number of the step.
        step: how many steps are done.
        losses: of each of them.
        seconds: that they took, over all starts.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    identity: dict[str, Any]
    file: Path
    variation: Variation | None = None
    step: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def varied(self) -> AbstractContextManager[object]:
        """Inside, steps meet the noise that belongs to their numbers, if there is any."""
        if self.variation is None:
            return nullcontext()
        self.variation.step = self.step
        return self.variation

    def save(self) -> None:
        """Write the checkpoint, whole or not at all.

        Raises:
            BadInput: it cannot be written.
        """
        state = {
            "identity": self.identity,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "step": self.step,
            "losses": self.losses,
            "seconds": self.seconds,
        }
        draft = self.file.with_name(f"{self.file.name}.part")
        try:
            with open(draft, "wb") as content:
                torch.save(state, content)
                content.flush()
                os.fsync(content.fileno())
            draft.replace(self.file)
        except (OSError, RuntimeError) as error:
            raise BadInput(f"{self.file}: cannot be written ({error}); make room, or choose another --out") from error

    def restore(self) -> None:
        """Go back to the checkpoint, if there is one.

        Raises:
            BadInput: it cannot be read, or belongs to another run.
        """
        if not self.file.exists():
            return
        try:
            state = torch.load(self.file, weights_only=True)
            differences(self.file, state["identity"], self.identity)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
            self.step, self.losses, self.seconds = state["step"], state["losses"], state["seconds"]
        except BadInput:
            raise
        except Exception as error:
            why = type(error).__name__
            raise BadInput(
                f"{self.file}: is no checkpoint that can be read ({why}); remove it to start anew"
            ) from error


def differences(file: Path, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    """Refuse to go on with, or to take for this run, what another run has left.

    Raises:
        BadInput: the two differ; the first difference is named.
    """
    for name, value in asked.items():
        if isinstance(value, dict) and isinstance(stored.get(name), dict):
            differences(file, stored[name], value)
        elif (was := stored.get(name)) != value:
            raise BadInput(
                f"{file}: is of a run with {name} = {was!r}, not {value!r}; choose another --out, or remove it"
            )
