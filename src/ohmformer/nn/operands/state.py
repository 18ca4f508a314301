"""What all layers of one converted model share: how faithfully, which chip, which clip, and what is asked right now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import enumerate as enumerate_threads
from threading import get_ident
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ohmformer.array.spec import Level
from ohmformer.capture.torch_private import in_backward
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import KVClip
from ohmformer.nn.threads import OfThread, Threads
from ohmformer.streams import Part, Stream, current_samples

Moved = Literal["number", "sample", "overwritten"]
"""How cells contradict a cache: they hold a cached token under another number of its sample, or for another sample; or
another token stands where they hold one, though later ones are the same."""
Mode = Literal["run", "bypass", "ideal", "observe tokens", "observe inputs", "observe converters"]


@dataclass(frozen=True)
class CallInfo:
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
        cached: there is a cache of keys and values.
        ring: the model keeps its cache by itself, and is told the positions of its tokens: token n stands in slot
            n mod N, however many slots N there are.
    """

    names: tuple[Part, ...] | None = None
    rows: int | None = None
    numbers: tuple[tuple[int, ...], ...] = ()
    written: tuple[int, ...] = ()
    padding: tuple[Tensor, ...] = ()
    memory: tuple[Tensor, ...] | None = None
    cached: bool = False
    ring: bool = False


_NOTHING = CallInfo()


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """What one step of variation-aware training draws its noise from, in place of the chip.

    Attributes:
        stream: the root of all its noise.
        cells: by operand, the cell with the write noise of this step, where that is not the hardware's.
    """

    stream: Stream
    cells: Mapping[str, Cell]


class TrainingSteps(Protocol):
    """Variation-aware training that is going on."""

    def draw(self) -> TrainingStep:
        """The next step."""


@dataclass(eq=False)
class State:
    """Shared by reference, so that one assignment reaches every layer.

    Attributes:
        level: fidelity of the simulation.
        seed: root of all streams.
        chip: which specimen of the hardware; another chip draws other noise and other faults.
        clip: conditioning of K and V before they are written.
        mode: self-checks compute every captured product exactly (`bypass`), or as cells without rounding and noise
            would, from what is written of it (`ideal`); the observing modes calibrate ranges.
        rounded: inputs and stored values are integers; otherwise quantizers are bypassed, and only noise remains.
        causal: some attention of the model is causal, so reads belong to tokens.
        said: what the last call of the whole model said, in this thread.
        inside: that call is going on.
        training: variation-aware training, inside of its block.
        last: the step of training that the last call was; None where it was none.
        threads: what each thread keeps for itself.
        padded: what an encoder returned -> which of its tokens [B, N] hold something. All threads share it, since a
            tensor is only ever what one call returned, and a decoder may look at it from another thread.
        callers: threads that are inside a call of the whole model.
    """

    level: Level = "array"
    seed: int = 0
    chip: int = 0
    clip: KVClip | None = None
    mode: Mode = "run"
    rounded: bool = True
    causal: bool = False
    training: TrainingSteps | None = None
    threads: Threads = field(default_factory=Threads)
    padded: WeakIdKeyDictionary = field(default_factory=WeakIdKeyDictionary)
    callers: set[int] = field(default_factory=set)
    name: ClassVar[str] = ""
    said = OfThread[CallInfo](CallInfo())
    inside = OfThread[bool](False)
    last = OfThread[TrainingStep | None](None)

    def __getstate__(self) -> dict[str, object]:
        """Outputs of an encoder are not kept with the model."""
        return {**vars(self), "padded": {}, "callers": set()}

    def __setstate__(self, kept: dict[str, object]) -> None:
        """As it was, with no outputs of an encoder."""
        vars(self).update(kept, padded=WeakIdKeyDictionary())

    def check_idle(self) -> None:
        """Check that no other thread is inside a call of the model, whose settings would change under it.

        Raises:
            BadInput: one is.
        """
        others = self.callers - {get_ident()}
        if others and others & {thread.ident for thread in enumerate_threads()}:
            raise BadInput(
                "another thread is calling this model, and settings hold for all threads; wait until it is done, or "
                "give each thread a copy of the model (copy.deepcopy)"
            )

    @property
    def frames(self) -> list[object | None]:
        """What intercepts products now in this thread, innermost last; None where nothing does."""
        return self.threads.frames

    @property
    def visited(self) -> set[str]:
        """Operands that this thread used since it last cleared this."""
        return self.threads.own("visited", set)

    @property
    def moved(self) -> dict[str, frozenset[Moved]]:
        """By operand with cached tokens, how its cells contradict them in the call of this thread."""
        return self.threads.own("moved", dict)

    @property
    def parts(self) -> list[CallInfo]:
        """What calls of encoders say that are going on in this thread, by themselves or inside of that of the model."""
        return self.threads.own("parts", list)

    @property
    def stream(self) -> Stream:
        """The stream of the chip, or of the step of training."""
        step = self.step
        return Stream("seed", self.seed, "chip", self.chip) if step is None else step.stream

    @property
    def step(self) -> TrainingStep | None:
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
    def call_info(self) -> CallInfo:
        """What the call of the whole model says that is going on, or whose layers are recomputed for its gradients.

        An encoder has inputs of its own. Other parts that are called by themselves know of no such call.
        """
        if self.parts:
            return self.parts[-1]
        return self.said if self._going_on else _NOTHING

    @property
    def goes_on(self) -> bool:
        """Whether the call adds tokens to texts that it has a cache of."""
        call_info = self.call_info
        return call_info.cached and any(row[0] > 0 for row in call_info.numbers)

    @property
    def samples(self) -> int | None:
        """How many samples the batch has, where that is known."""
        names = current_samples() or self.call_info.names
        return self.call_info.rows if names is None else len(names)

    @contextmanager
    def set_mode(self, mode: Mode) -> Iterator[None]:
        """Inside, products are computed in this mode; afterward in `run`."""
        self.mode = mode
        try:
            yield
        finally:
            self.mode = "run"

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Products inside are those of the simulation itself: nothing intercepts them."""
        self.frames.append(None)
        try:
            yield
        finally:
            self.frames.pop()
