"""What all layers of one converted model share: how faithfully, which chip, which clip, and what is asked right now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ohmformer.array.spec import Level
from ohmformer.capture.torch_private import in_backward
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import KVClip
from ohmformer.nn.operands.memory import Memory
from ohmformer.nn.threads import Block, Threads, Users
from ohmformer.streams import Part, Stream, current_samples

Moved = Literal["number", "sample", "overwritten"]
"""How cells contradict a cache: they hold a cached token under another number of its sample, or for another sample; or
another token stands where they hold one, though later ones are the same."""
Mode = Literal["run", "bypass", "ideal", "written", "observe tokens", "observe inputs", "observe converters"]


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
        at_once: tokens never come one by one, as those of an encoder.
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
    at_once: bool = False
    ring: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether the call adds tokens to texts that it has a cache of."""
        return self.cached and any(row[0] > 0 for row in self.numbers)


_NOTHING = CallInfo()

SETTINGS = ("level", "seed", "chip", "clip", "mode", "rounded", "training")
"""Attributes of `State` that say how a model computes."""


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


@dataclass(eq=False, slots=True)
class Call:
    """What one thread keeps of its calls of the whole model.

    Attributes:
        info: what the last call says of its batch.
        active: that call is going on.
        step: the step of training that the last call was; None where it was none.
        encoders: what calls of encoders say that are going on, by themselves or inside of that of the model.
        recomputed: how names of operands begin that only an encoder uses -> what its last call says.
        uses: by operand, how often the call has used it.
        moved: by operand with cached tokens, how its cells contradict them.
        written: by operand, what was written last, where a cache may bring it back.
    """

    info: CallInfo = _NOTHING
    active: bool = False
    step: TrainingStep | None = None
    encoders: list[CallInfo] = field(default_factory=list)
    recomputed: dict[str, CallInfo] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    moved: dict[str, frozenset[Moved]] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)


class Use(NamedTuple):
    """One use of an operand: what the call says of which it is a part.

    Attributes:
        info: of the call of the model, or of its encoder; empty where a part of the model is called by itself.
        step: the step of training.
        stream: root of all noise: that of the chip, or of the step of training.
        call_index: which use of the forward pass it is, as a part of stream keys; empty where the operand is used once.
    """

    info: CallInfo
    step: TrainingStep | None
    stream: Stream
    call_index: tuple[int, ...]


@dataclass(eq=False)
class State:
    """Shared by reference, so that one assignment reaches every layer.

    Attributes:
        level: fidelity of the simulation.
        seed: root of all streams.
        chip: which specimen of the hardware; another chip draws other noise and other faults.
        clip: conditioning of K and V before they are written.
        mode: self-checks compute every captured product exactly (`bypass`), or as cells without rounding and noise
            would, from what is written of it (`ideal`), or with such cells for weights and noisy ones for K and V
            (`written`); the observing modes calibrate ranges.
        rounded: inputs and stored values are integers; otherwise quantizers are bypassed, and only noise remains.
        causal: some attention of the model is causal, or all of it looks at other tokens than its queries; so tokens
            may come one by one, and reads belong to tokens.
        training: variation-aware training, inside of its block.
        threads: what each thread keeps of its calls.
        memory: tensors whose rows are not the new tokens of a call, such as what an encoder returned.
        users: the threads that call the model, and the one that changes its settings.
    """

    level: Level = "array"
    seed: int = 0
    chip: int = 0
    clip: KVClip | None = None
    mode: Mode = "run"
    rounded: bool = True
    causal: bool = False
    training: TrainingSteps | None = None
    threads: Threads[Call] = field(default_factory=lambda: Threads(Call))
    memory: Memory = field(default_factory=Memory)
    users: Users = field(default_factory=Users)

    def __getstate__(self) -> dict[str, object]:
        """A copy has the settings, without blocks of training or self-checks.

        Inside a block of another thread it has those that the model had before the block.

        Raises:
            BadInput: another thread calibrates the model.
        """
        block = self.users.foreign_block()
        if block is not None and block.unfinished:
            raise BadInput(f"another thread is inside {block.verb}, so this model cannot be copied; {block.remedy}")
        before = {} if block is None else self.users.before
        return {**vars(self), **before, "mode": "run", "training": None}

    def begin_block(self, verb: str, *, unfinished: bool = False) -> Block:
        """Begin work that changes settings, for `users.end`; until then no other thread can call the model.

        Args:
            verb: the public function that does it.
            unfinished: copies that another thread makes meanwhile would be of no use.

        Raises:
            BadInput: another thread is inside a call, or changes settings itself.
        """
        block = Block(verb, unfinished)
        self.users.begin(block, vars(self), SETTINGS)
        return block

    @contextmanager
    def changing(self, verb: str, *, unfinished: bool = False) -> Iterator[None]:
        """Inside, the current thread may change settings, and no other one can call the model. See `begin_block`.

        Raises:
            BadInput: another thread is inside a call, or changes settings itself.
        """
        block = self.begin_block(verb, unfinished=unfinished)
        try:
            yield
        finally:
            self.users.end(block)

    def check_settings(self) -> None:
        """Check that settings are those of the model, or of this thread, for a part that is called by itself.

        Raises:
            BadInput: another thread changes them.
        """
        if self.users.owner is not None and not self.in_own_call:
            self.users.check()

    @property
    def in_own_call(self) -> bool:
        """True if this thread is inside a call of the whole model."""
        call = self.threads.here.call
        return call is not None and call.active

    def use(self, operand: str, calls_per_forward: int) -> Use:
        """The next use of an operand begins; a forward pass has `calls_per_forward` of them.

        Raises:
            BadInput: a part of the model is trained by itself, so that nothing says when a step begins; or it is
                called by itself while another thread changes settings.
        """
        self.check_settings()
        call = self.threads.call
        n = call.uses.get(operand, 0)
        call.uses[operand] = n + 1
        n %= calls_per_forward  # only the remainder counts, so recomputing a layer that is used once shifts nothing
        if call.active or in_backward():
            info, step = call.info, call.step
        else:
            info, step = _NOTHING, None
            self._check_untrained()
        if call.encoders:
            info = call.encoders[-1]
        elif call.recomputed and in_backward():  # the layers of an encoder are recomputed one by one
            info = next((said for prefix, said in call.recomputed.items() if operand.startswith(prefix)), info)
        stream = Stream("seed", self.seed, "chip", self.chip) if step is None else step.stream
        return Use(info, step, stream, (n,) if n else ())

    def _check_untrained(self) -> None:
        """Check that a part of the model that is called by itself is not trained.

        Raises:
            BadInput: it is.
        """
        if self.training is not None and torch.is_grad_enabled():
            raise BadInput(
                "a part of the model was called by itself inside `with variation(model):`; a step is a call of the "
                "whole model, so call that, or use no_grad() where nothing is trained"
            )

    @property
    def call_info(self) -> CallInfo:
        """What the call of the whole model says that is going on, or whose layers are recomputed for its gradients.

        An encoder has inputs of its own. Other parts that are called by themselves know of no such call.
        """
        call = self.threads.call
        if call.encoders:
            return call.encoders[-1]
        return call.info if call.active or in_backward() else _NOTHING

    @property
    def samples(self) -> int | None:
        """How many samples the batch has, where that is known."""
        names = current_samples()
        if names is None:
            info = self.call_info
            if info.names is None:
                return info.rows
            names = info.names
        return len(names)

    @contextmanager
    def set_mode(self, mode: Mode) -> Iterator[None]:
        """Inside, products are computed in this mode; afterward in `run`."""
        self.mode = mode
        try:
            yield
        finally:
            self.mode = "run"
