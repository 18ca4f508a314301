"""Variation-aware training: every step meets other cells, so that the weights it finds work in any.

A step is one call of the whole model in train mode. It draws all noise anew, of weights, of K and V, of reads and of
faults, as if it were taken on another chip; gradients pass straight through (as Joshi et al. 2020 do with weights, and
ClipFormer with K and V). Noise is in the cells, never in the parameters.
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
from ohmformer.errors import BadInput, suggest
from ohmformer.nn.convert.handle import check_seed, crossbars
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.state import State, TrainingStep
from ohmformer.nn.threads import Block
from ohmformer.streams import Stream

Amount = float | tuple[float, float]
Factor = Amount | Mapping[str, Amount] | None

ROLES = ("projection", "attention", "attention.key", "attention.value")
_ALL = "all"


class NoSteps(UserWarning):
    """A block of variation-aware training ended, and nothing in it was a step."""


def variation(model: nn.Module, *, seed: int | None = None, gamma: Factor = None, scale: Factor = None) -> Variation:
    """Train a converted model on noise that is drawn anew in every step: `with variation(model): train(model)`.

    A step is one call of the whole model in train mode. So parts of a batch whose gradients are accumulated are steps
    of their own. Layers that are recomputed for gradients (checkpointing) see the noise of the call from whose outputs
    the gradients come, or else of the last one. Calls in eval mode, inside and after, meet the model's own chip, with
    the weights as they are then. Rows of a batch have noise of their own, named with `samples` or not. Inside, other
    threads cannot call the model; they can call copies, which are not in the block.

    Gradients are those of the exact product at the matrix that the cells hold: they pass quantizers, noise, clips and
    saturation straight through. Parameters hold no noise at any time, and layers that rules keep digital none at all.
    Ranges that the conversion calibrated stay as they are: to calibrate them for trained weights, convert what `revert`
    returns.

    Args:
        model: what `convert` returned.
        seed: root of the noise of training; step n of a seed draws the same whenever it comes. None takes the model's.
        gamma: the factor gamma of the cells' write noise: a number; or (low, high), from which each step draws
            uniformly; or these by role (`ROLES`; the first that fits counts), such as {"attention": (0, 5)}. Where it
            does not say, the hardware's own.
        scale: likewise a factor of the standard deviation of write noise of any kind (of ln G, for `lognormal`).

    Raises:
        BadInput: the model is not converted, a value does not fit, gamma is asked of cells whose noise has none, or
            what is asked for changes no cell.
    """
    found = crossbars(model)
    seed = found.state.seed if seed is None else seed
    return Variation(found.state, found.operands, seed=seed, gamma=gamma, scale=scale)


class Variation:
    """What `variation` returns: a context, which may be entered again, and the count of its steps.

    To resume a training, set `step` to what it was, or load what `state_dict` gave: the noise goes on to the bit.
    """

    def __init__(self, state: State, operands: tuple[Operand, ...], *, seed: int, gamma: Factor, scale: Factor) -> None:
        seed = check_seed(seed)
        if gamma is not None and scale is not None:
            raise BadInput("variation: gamma and scale both set the write noise; give one of them")
        self.seed, self._step, self._began = seed, 0, 0
        self._state, self._block = state, Block("variation")
        self._gamma, self._scale = _ranges("gamma", gamma), _ranges("scale", scale)
        self._keys = _keys(operands, self._gamma or self._scale)
        self._cells = {operand.name: operand.array.cell for operand in operands}
        self._check_cells()

    @property
    def step(self) -> int:
        """How many steps were drawn; the next one has this number.

        Raises:
            BadInput: it is set to something else than a whole number from 0 to 2^63 - 1.
        """
        return self._step

    @step.setter
    def step(self, value: int) -> None:
        self._step = check_seed(value, "variation: step")

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs, as plain values: seed, step, and what gamma or scale are drawn from."""
        gamma, scale = ({key: list(ends) for key, ends in found.items()} for found in (self._gamma, self._scale))
        return {"seed": self.seed, "step": self.step, "gamma": gamma, "scale": scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a training was.

        Raises:
            BadInput: it had another seed, gamma or scale, or this is no such state.
        """
        own = self.state_dict()
        for name, value in own.items():
            if not isinstance(state, Mapping) or name not in state:
                raise BadInput(f"variation: the state has no {name!r}; give what state_dict() returned")
            if name != "step" and state[name] != value:
                raise BadInput(f"variation: the state has {name} = {state[name]!r}, not {value!r}; give the same here")
        self.step = state["step"]

    def draw(self) -> TrainingStep:
        """The next step; a model in train mode asks for it when it is called."""
        stream = Stream("seed", self.seed, "variation", self._step)
        self._step += 1
        return TrainingStep(stream, dict(self._noisy(stream)))

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

    def _noisy(self, stream: Stream) -> Iterator[tuple[str, Cell]]:
        """The cells of a step, by operand, where they are not the hardware's."""
        drawn = {key: _drawn(ends, stream.child("factor", key)) for key, ends in (self._gamma or self._scale).items()}
        made: dict[tuple[str, int], Cell] = {}
        for name, key in self._keys.items():
            cell = self._cells[name]
            if (key, id(cell)) not in made:
                made[key, id(cell)] = self._changed(cell, drawn[key])
            yield name, made[key, id(cell)]

    def _changed(self, cell: Cell, value: float) -> Cell:
        return noise.with_gamma(cell, value) if self._gamma else noise.scaled(cell, value)

    def _check_cells(self) -> None:
        """Refuse factors that cells do not have, and those that change nothing."""
        which = "gamma" if self._gamma else "scale"
        for name in self._keys:
            kind = self._cells[name].write_noise.kind
            if self._gamma and kind not in ("none", "sqrt_range"):
                raise BadInput(
                    f"variation: gamma: write noise {kind!r} of the cells of {name} has no gamma; give scale, a factor "
                    "of the noise of any kind"
                )
        for key, (_, high) in (self._gamma or self._scale).items():
            cells = [self._cells[name] for name, own in self._keys.items() if own == key]
            if high > 0 and all(noise.silent(self._changed(cell, high)) for cell in cells):
                where = "" if key == _ALL else f" for {key!r}"
                raise BadInput(
                    f"variation: {which}{where} changes nothing: no such cell has write noise; give the hardware some, "
                    f"or leave {which} out"
                )


def _keys(operands: tuple[Operand, ...], ranges: Mapping[str, object]) -> dict[str, str]:
    """For each operand, the first key that speaks of it; operands that none speaks of are left out."""
    found = {}
    for operand in operands:
        role = {"K": "attention.key", "V": "attention.value"}[operand.name[-1]] if operand.dynamic else "projection"
        fitting = (key for key in ranges if key in (_ALL, role) or role.startswith(f"{key}."))
        if (key := next(fitting, None)) is not None:
            found[operand.name] = key
    return found


def _ranges(what: str, value: Any) -> dict[str, tuple[float, float]]:
    """Lowest and highest value, by key."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        return {_ALL: _ends(f"variation: {what}", value)}
    for key in value:
        if key not in ROLES:
            raise BadInput(f"variation: {what}: {key!r} is no role; {suggest(str(key), list(ROLES))}")
    return {key: _ends(f"variation: {what}[{key!r}]", ends) for key, ends in value.items()}


def _ends(what: str, value: Any) -> tuple[float, float]:
    ends = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    numbers = [end for end in ends if isinstance(end, (int, float)) and not isinstance(end, bool)]
    if len(ends) != 2 or len(numbers) != 2 or not 0 <= ends[0] <= ends[1] < math.inf:
        raise BadInput(f"{what} = {value!r}: must be a number, 0 or more, or (low, high) with low <= high")
    return float(ends[0]), float(ends[1])


def _drawn(ends: tuple[float, float], stream: Stream) -> float:
    low, high = ends
    return low if low == high else low + (high - low) * float(stream.uniform(1, like=torch.empty(0)))
