"""Variation-aware training: every step draws new noise, so that the trained weights work on any chip.

A step is one call of the whole model in train mode. It draws the noise of weights, K, V, reads and faults anew, as if
it ran on another chip. Gradients pass straight through, as in Joshi et al. 2020 (weights) and in ClipFormer (K and V).
Noise is in the cells, never in the parameters.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from ohmformer.device import noise
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput, one_line, shown, suggest
from ohmformer.nn.convert.handle import check_seed, crossbars
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.shared.state import State, TrainingStep
from ohmformer.nn.shared.threads import SettingsBlock
from ohmformer.streams import Stream

Amount = float | tuple[float, float]
"""A value, or (low, high) of a uniform distribution."""
Factor = Amount | Mapping[str, Amount] | None
"""An amount for all operands, or amounts by role."""

ROLES = ("projection", "attention", "attention.key", "attention.value")
_ALL = "all"


class NoSteps(UserWarning):
    """A block of variation-aware training ended without a step."""


def variation(model: nn.Module, *, seed: int | None = None, gamma: Factor = None, scale: Factor = None) -> Variation:
    """Train a converted model on noise that is drawn anew in every step: `with variation(model): train(model)`.

    A step is one call of the whole model in train mode; with accumulated gradients, each part of a batch is a step.
    Layers that are recomputed for gradients (checkpointing) see the noise of the call whose outputs the gradients come
    from, or else of the last call. Calls in eval mode, inside the block and after it, use the model's chip and the
    current weights. Each row of a batch has separate noise, named with `samples` or not. Inside the block other threads
    cannot call the model; they can call copies, which are outside of the block.

    Gradients are those of the exact product with the matrix that the cells hold: they pass quantizers, noise, clips and
    saturation straight through. Parameters never hold noise, and layers that rules keep digital have none. Ranges stay
    those of the conversion; to calibrate them for trained weights, revert the model and convert it again.

    Args:
        model: a converted model.
        seed: root of the noise of training; step n of a seed always draws the same noise. None takes the model's seed.
        gamma: the factor gamma of the cells' write noise: a number; or (low, high), from which each step draws
            uniformly; or one of these by role, such as {"attention": (0, 5)}. Roles are those in `ROLES`; the first
            that fits an operand counts. Operands without a value here keep the gamma of the hardware.
        scale: likewise a factor of the standard deviation of write noise of any kind (of ln G for `lognormal`).

    Raises:
        BadInput: the model is not converted, a value is out of range, the write noise of some cells has no gamma, or
            gamma or scale changes no cell.
    """
    handle = crossbars(model)
    seed = handle.state.seed if seed is None else seed
    return Variation(handle.state, handle.operands, seed=seed, gamma=gamma, scale=scale)


class Variation:
    """A context of variation-aware training, which may be entered repeatedly, and the count of its steps.

    To resume a training, set `step` to its former value or load the state dictionary: the noise is the same to the bit.
    """

    def __init__(self, state: State, operands: tuple[Operand, ...], *, seed: int, gamma: Factor, scale: Factor) -> None:
        seed = check_seed(seed)
        if gamma is not None and scale is not None:
            raise BadInput("variation: gamma and scale both set the write noise; give one of them")
        self.seed, self._step, self._began = seed, 0, 0
        self._state, self._block = state, SettingsBlock("variation")
        self._gamma, self._scale = _ranges("gamma", gamma), _ranges("scale", scale)
        self._keys = _keys(operands, self._gamma or self._scale)
        self._cells = {operand.name: operand.array.cell for operand in operands}
        # Of the last step: where a factor stays as it was, so do the cells, and all that is known of them.
        self._drawn_cells: dict[tuple[int, float], Cell] = {}
        self._check_cells()

    @property
    def step(self) -> int:
        """Number of steps drawn so far, which is also the index of the next step.

        Raises:
            BadInput: the new value is not a whole number from 0 to 2^63 - 1.
        """
        return self._step

    @step.setter
    def step(self, value: int) -> None:
        self._step = check_seed(value, "variation: step")

    def state_dict(self) -> dict[str, Any]:
        """Return the values that resuming needs, as JSON: seed, step, and [low, high] of gamma or scale by role."""
        gamma, scale = ({key: list(ends) for key, ends in factor.items()} for factor in (self._gamma, self._scale))
        return {"seed": self.seed, "step": self.step, "gamma": gamma, "scale": scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume a training.

        Args:
            state: the state dictionary of that training.

        Raises:
            BadInput: the training had another seed, gamma or scale, or `state` is not a state dictionary.
        """
        current = self.state_dict()
        for name, value in current.items():
            if not isinstance(state, Mapping) or name not in state:
                raise BadInput(f"variation: the state has no {name!r}; give what state_dict() returned")
            if name != "step" and state[name] != value:
                raise BadInput(f"variation: the state has {name} = {state[name]!r}, not {value!r}; give the same here")
        self.step = state["step"]

    def draw(self) -> TrainingStep:
        """Return the next step; each call of the model in train mode takes one."""
        stream = Stream("seed", self.seed, "variation", self._step, kernels=self._state.kernels)
        self._step += 1
        return TrainingStep(stream, dict(self._step_cells(stream)))

    def __enter__(self) -> Self:
        block = self._state.begin_block("variation")
        if self._state.training is not None:
            self._state.users.end(block)
            raise BadInput("variation: the model is in such a block already; leave it first")
        self._block = block
        self._state.training, self._began = self, self._step
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._state.training is self:
            self._state.training = self._state.threads.call.step = None
        self._state.users.end(self._block)
        if kind is None and self._step == self._began:
            warnings.warn(
                "variation: the model was not called in train mode, so nothing was varied; call model.train() first",
                NoSteps,
                stacklevel=2,
            )

    def _step_cells(self, stream: Stream) -> Iterator[tuple[str, Cell]]:
        """Yield (operand name, cell) for each operand whose write noise this step changes."""
        drawn = {key: _drawn(ends, stream.child("factor", key)) for key, ends in (self._gamma or self._scale).items()}
        before, self._drawn_cells = self._drawn_cells, {}
        cells = self._drawn_cells
        for name, key in self._keys.items():
            cell, value = self._cells[name], drawn[key]
            which = id(cell), value
            if which not in cells:
                cells[which] = before.get(which) or self._changed(cell, value)
            yield name, cells[which]

    def _changed(self, cell: Cell, value: float) -> Cell:
        """Return a cell with this gamma, or with its write noise scaled by this factor."""
        return noise.with_gamma(cell, value) if self._gamma else noise.scaled(cell, value)

    def _check_cells(self) -> None:
        """Refuse gamma for cells without one, and factors that change nothing.

        Raises:
            BadInput: a factor is of this kind.
        """
        factor = "gamma" if self._gamma else "scale"
        for name in self._keys:
            kind = self._cells[name].write_noise.kind
            if self._gamma and kind not in ("none", "sqrt_range"):
                raise BadInput(
                    f"variation: gamma: write noise {kind!r} of the cells of {name} has no gamma; give scale, a factor "
                    "of the noise of any kind"
                )
        for key, (_, high) in (self._gamma or self._scale).items():
            cells = [self._cells[name] for name, its_key in self._keys.items() if its_key == key]
            if high > 0 and all(noise.silent(self._changed(cell, high)) for cell in cells):
                where = "" if key == _ALL else f" for {key!r}"
                raise BadInput(
                    f"variation: {factor}{where} changes nothing: no such cell has write noise; give the hardware "
                    f"some, or leave {factor} out"
                )


def _keys(operands: tuple[Operand, ...], ranges: Mapping[str, object]) -> dict[str, str]:
    """Return for each operand the first key of `ranges` that fits it; operands that no key fits are left out."""
    keys = {}
    for operand in operands:
        role = {"K": "attention.key", "V": "attention.value"}[operand.name[-1]] if operand.dynamic else "projection"
        fitting = (key for key in ranges if key in (_ALL, role) or role.startswith(f"{key}."))
        if (key := next(fitting, None)) is not None:
            keys[operand.name] = key
    return keys


def _ranges(name: str, value: Any) -> dict[str, tuple[float, float]]:
    """Return (low, high) of a factor by role, or for "all"; empty for None.

    Raises:
        BadInput: a role is unknown, or a value is out of range.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        return {_ALL: _ends(f"variation: {name}", value)}
    for key in value:
        if key not in ROLES:
            raise BadInput(f"variation: {name}: {shown(key)} is not a role; {suggest(shown(key), list(ROLES))}")
    return {key: _ends(f"variation: {name}[{key!r}]", ends) for key, ends in value.items()}


def _ends(title: str, value: Any) -> tuple[float, float]:
    """Return a number, or (low, high), as (low, high).

    Raises:
        BadInput: it is neither, or below 0, or low is above high.
    """
    ends = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    numbers = [end for end in ends if isinstance(end, (int, float)) and not isinstance(end, bool)]
    if len(ends) != 2 or len(numbers) != 2 or not 0 <= ends[0] <= ends[1] < math.inf:
        raise BadInput(f"{title} = {one_line(value)}: must be a number, 0 or more, or (low, high) with low <= high")
    return float(ends[0]), float(ends[1])


def _drawn(ends: tuple[float, float], stream: Stream) -> float:
    """Draw a number between low and high."""
    low, high = ends
    return low if low == high else low + (high - low) * float(stream.uniform(1, like=torch.empty(0)))
