"""Runs of a converted model on calibration inputs, on chips that are never evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from ohmformer.array import writing
from ohmformer.array.peripherals.spec import draws_for_reads, mismatched
from ohmformer.array.spec import Crossbar
from ohmformer.capture.inputs import Inputs, batches, call, size, take
from ohmformer.device import noise
from ohmformer.nn.calibration.calibration_inputs import first_inputs
from ohmformer.nn.calibration.comparison import Answer, answer_of, losses_of
from ohmformer.nn.convert.handle import Handle
from ohmformer.nn.shared.state import Mode
from ohmformer.streams import samples

CHIP = -1
"""The chip of calibration; further ones have the numbers below. None is one of the chips 0, 1, ... of `monte_carlo`."""
CHIPS = 3
"""Number of chips on which static weights are compared, since all inputs of one chip meet the same errors."""
OBSERVED = 16
"""Largest number of inputs that are observed to set up recipes; recipes are compared on all inputs."""


@contextmanager
def on_calibration_chip(handle: Handle, seed: int) -> Iterator[None]:
    """Context in which the model is on the chip of calibration; afterward it has its former chip and seed."""
    state = handle.state
    with state.changing("calibrate", unfinished=True):
        before = state.seed, state.chip
        state.seed, state.chip = seed, CHIP
        try:
            yield
        finally:
            state.seed, state.chip = before


@dataclass(frozen=True, eq=False)
class Runs:
    """A converted model and the inputs on which it is calibrated.

    Attributes:
        model: the model.
        handle: its handle.
        parts: batches of inputs.
        batch: number of samples per call.
    """

    model: nn.Module
    handle: Handle
    parts: list[Inputs]
    batch: int

    @cached_property
    def reference(self) -> list[Answer]:
        """The answers of the original to all inputs."""
        return self.run("bypass")

    def run(self, mode: Mode, most: int | None = None) -> list[Answer]:
        """Run the model in a mode, and return its answer to each batch.

        Args:
            mode: the mode.
            most: number of the first inputs to run; None for all.
        """
        answers: list[Answer] = []
        first = 0
        with torch.no_grad(), self.handle.state.set_mode(mode):
            for inputs in self.parts if most is None else first_inputs(self.parts, most):
                for rows in batches(inputs, self.batch):
                    with samples(f"calibration {first + n}" for n in range(rows.start, rows.stop)):
                        answers.append(answer_of(call(self.model, take(inputs, rows)), rows.stop - rows.start))
                first += size(inputs)
        return answers


def losses_on_chips(runs: Runs, mode: Mode) -> Tensor:
    """Return the losses [chips, all] of a model in a mode against its original, on the chips of calibration."""
    state, losses = runs.handle.state, []
    for chip in range(CHIP, CHIP - CHIPS, -1):
        state.chip = chip
        losses.append(losses_of(runs.reference, runs.run(mode)))
    state.chip = CHIP
    return torch.stack(losses)


def is_noiseless(array: Crossbar) -> bool:
    """True if cells hold and return exactly the values that are written, so that there is nothing to protect."""
    exact = writing.exact(array) and noise.exact_reads(array.cell) and not writing.has_faults(array)
    return exact and not draws_for_reads(array) and not mismatched(array)
