"""What all layers of one converted model share: how faithfully, which chip, which clip, and what is asked right now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from ohmformer.array.multiply import Level
from ohmformer.capture.torch_private import in_backward
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import KVClip
from ohmformer.nn.threads import OfThread, Threads
from ohmformer.streams import Part, Stream, current_samples

Mode = Literal["run", "bypass", "observe tokens", "observe inputs", "observe converters"]


@dataclass(frozen=True)
class Asked:
    """What a call of the whole model says of its batch: B samples of M tokens each.

    Attributes:
        names: of the samples, as given with `samples`; None without.
        rows: B, or None where the inputs do not show it.
        numbers: for each sample, the number of each of its M tokens, padding not counted (-1 at padding); empty for
            inputs that are no tokens.
        written: for each sample, how many tokens it has had by the end of this call; empty where that is not said.
        padding: which places [B, N] of the tokens hold something; empty where that is not said, or where it might be
            mistaken for that of other inputs.
        memory: the same of what a decoder looks at; None where there is no decoder with inputs of its own.
        slots: how many places of a cache are in use by the end of this call, padding included; None if not said.
        cached: there is a cache of keys and values.
    """

    names: tuple[Part, ...] | None = None
    rows: int | None = None
    numbers: tuple[tuple[int, ...], ...] = ()
    written: tuple[int, ...] = ()
    padding: tuple[Tensor, ...] = ()
    memory: tuple[Tensor, ...] | None = None
    slots: int | None = None
    cached: bool = False


_NOTHING = Asked()


@dataclass(frozen=True, eq=False)
class Step:
    """What one step of variation-aware training draws its noise from, in place of the chip.

    Attributes:
        stream: the root of all its noise.
        cells: by operand, the cell with the write noise of this step, where that is not the hardware's.
    """

    stream: Stream
    cells: Mapping[str, Cell]


class Steps(Protocol):
    """Variation-aware training that is going on."""

    def draw(self) -> Step:
        """The next step."""


@dataclass(eq=False)
class State:
    """Shared by reference, so that one assignment reaches every layer.

    Attributes:
        level: fidelity of the simulation.
        seed: root of all streams.
        chip: which specimen of the hardware; another chip draws other noise and other faults.
        clip: conditioning of K and V before they are written.
        mode: `bypass` computes every captured product exactly (self-check); the observing modes calibrate ranges.
        rounded: inputs and stored values are integers; otherwise quantisers are bypassed, and only noise remains.
        causal: some attention of the model is causal, so reads belong to tokens.
        said: what the last call of the whole model said.
        inside: that call is going on.
        training: variation-aware training, inside of its block.
        last: the step of training that the last call was; None where it was none.
        visited: operands that were used since it was last cleared.
        threads: what each thread keeps for itself.
    """

    level: Level = "array"
    seed: int = 0
    chip: int = 0
    clip: KVClip | None = None
    mode: Mode = "run"
    rounded: bool = True
    causal: bool = False
    training: Steps | None = None
    visited: set[str] = field(default_factory=set)
    threads: Threads = field(default_factory=Threads)
    said = OfThread[Asked](Asked())
    inside = OfThread[bool](False)
    last = OfThread[Step | None](None)

    @property
    def frames(self) -> list[object | None]:
        """What intercepts products now, innermost last; None where nothing does."""
        return self.threads.frames

    @property
    def stream(self) -> Stream:
        """The stream of the chip, or of the step of training."""
        step = self.step
        return Stream("seed", self.seed, "chip", self.chip) if step is None else step.stream

    @property
    def step(self) -> Step | None:
        """The step of training that is going on, or whose layers are recomputed for its gradients.

        Raises:
            BadInput: a part of the model is trained by itself, so that nothing says when a step begins.
        """
        if self._going_on:
            return self.last
        if self.training is not None and torch.is_grad_enabled():
            raise BadInput(
                "a part of the model was called by itself inside `with variation(model):`; a step is a call of the "
                "whole model, so call that, or use no_grad() where nothing is trained"
            )
        return None

    @property
    def _going_on(self) -> bool:
        """Whether a call of the whole model is going on, or layers of the last one are recomputed."""
        return self.inside or in_backward()

    @property
    def asked(self) -> Asked:
        """What the call of the whole model says that is going on, or whose layers are recomputed for its gradients.

        Parts of the model that are called by themselves, such as an encoder, know of no such call.
        """
        return self.said if self._going_on else _NOTHING

    @property
    def goes_on(self) -> bool:
        """Whether the call adds tokens to texts that it has a cache of."""
        asked = self.asked
        return asked.cached and any(row[0] > 0 for row in asked.numbers)

    @property
    def samples(self) -> int | None:
        """How many samples the batch has, where that is known."""
        names = current_samples() or self.asked.names
        return self.asked.rows if names is None else len(names)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Products inside are those of the simulation itself: nothing intercepts them."""
        self.frames.append(None)
        try:
            yield
        finally:
            self.frames.pop()
