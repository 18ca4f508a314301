"""The state that all layers of a converted model share: settings such as level, chip and clip, and the present call."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ohmformer.array.spec import Level
from ohmformer.capture.torch_private import in_backward
from ohmformer.deferred_checks import DeferredChecks
from ohmformer.device.spec import Cell
from ohmformer.errors import BadInput
from ohmformer.mitigation.spec import KVClip
from ohmformer.nn.shared.memory import AttendedMemory, Mask
from ohmformer.nn.shared.threads import SettingsBlock, Threads, Users
from ohmformer.nn.shared.weight_fingerprints import Fingerprints
from ohmformer.streams import Part, Stream, current_samples
from ohmformer.streams.backends import Kernels

Moved = Literal["number", "sample", "overwritten"]
"""Ways in which cells contradict a cache. The cells hold a cached token under another number of its sample ("number"),
or for another sample ("sample"); or the cache has another token in front of unchanged ones ("overwritten")."""
Computing = Literal["run", "run weights", "bypass", "ideal", "written"]
Mode = Literal[Computing, "observe tokens", "observe vectors", "observe inputs", "observe converters"]
"""Modes of a model; see `State.mode`."""


@dataclass(frozen=True)
class CallInfo:
    """Samples, tokens and padding of one call of the whole model: B samples of M tokens each.

    Attributes:
        names: names of the samples from `samples`; None without them.
        batch_size: B; None if the inputs do not show it.
        numbers: for each sample, the number of each of its M tokens, padding not counted (-1 at padding); empty if the
            inputs are not tokens.
        tokens_so_far: for each sample, its number of tokens at the end of this call, cached ones included; empty if
            unknown.
        token_mask: mask [B, N], True at tokens and False at padding, as a tuple; empty if unknown, or if it might be
            taken for the mask of other inputs.
        memory_mask: such a mask of the tokens to which a decoder attends; None without a decoder with separate inputs.
        cached: True if there is a KV cache.
        at_once: True if tokens never come one by one, as in an encoder.
        ring: True if the model keeps its cache itself and takes the positions of its tokens as an argument; token n
            then stands in slot n mod N of N slots.
    """

    names: tuple[Part, ...] | None = None
    batch_size: int | None = None
    numbers: tuple[tuple[int, ...], ...] = ()
    tokens_so_far: tuple[int, ...] = ()
    token_mask: Mask = ()
    memory_mask: Mask | None = None
    cached: bool = False
    at_once: bool = False
    ring: bool = False

    @cached_property
    def goes_on(self) -> bool:
        """True if the call adds tokens to cached texts."""
        return self.cached and any(row[0] > 0 for row in self.numbers)


@lru_cache(maxsize=8)
def _root(seed: int, chip: int, kernels: Kernels) -> Stream:
    return Stream("seed", seed, "chip", chip, kernels=kernels)


_UNKNOWN = CallInfo()
"""The information on a call whose arguments are not known."""

SETTINGS = ("level", "seed", "chip", "clip", "mode", "rounded", "training")
"""Attributes of `State` that are settings of the model."""


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """The source of noise of one step of variation-aware training, in place of a chip.

    Attributes:
        stream: root of all noise of the step.
        cells: operand -> the cell with the write noise of this step, if that is not the hardware's.
    """

    stream: Stream
    cells: Mapping[str, Cell]


class TrainingSteps(Protocol):
    """The steps of a block of variation-aware training."""

    def draw(self) -> TrainingStep:
        """Return the next step."""


class Grown(NamedTuple):
    """A tensor [B, R, n, d] that is another one with tokens behind it, such as a KV cache after one more token.

    Attributes:
        whole: the tensor.
        first: the one that it begins with.
        versions: of both, when it was made: other numbers show that one of them has changed.
    """

    whole: weakref.ref[Tensor]
    first: weakref.ref[Tensor]
    versions: tuple[int, int]

    def goes_on(self, tokens: Tensor, before: tuple[weakref.ref[Tensor], int] | None) -> bool:
        """True if this is how tokens were made from a tensor `before`, given with its version, and neither changed."""
        if before is None or self.whole() is not tokens or (first := self.first()) is None:
            return False
        return first is before[0]() and self.versions == (tokens._version, before[1])

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies know no tensors."""
        return Grown, (_gone, _gone, self.versions)


def _gone() -> None:
    """Stands for a reference to a tensor in a copy."""


@dataclass(eq=False, slots=True)
class Call:
    """The record of one thread's calls of the whole model.

    Attributes:
        info: samples, tokens and padding of the last call.
        active: True while that call runs.
        step: the step of training of the last call; None outside of training.
        encoders: information on the running calls of encoders, inside the call of the model or separate.
        recomputed: prefix of the operands that only one encoder uses -> information on its last call.
        uses: operand -> number of its uses in the call.
        moved: operand with cached tokens -> the ways in which its cells contradict the cache.
        written: operand -> its last written tokens, which a cache may return.
        grown: identity of a tensor that this call has made of another one and tokens behind it -> both, see `Grown`.
        token_counts: operand with digital tokens -> the tokens of its uses since these were last counted.
        checks: of values on a GPU, which wait for the end of the call; None outside of calls.
    """

    info: CallInfo = _UNKNOWN
    active: bool = False
    step: TrainingStep | None = None
    encoders: list[CallInfo] = field(default_factory=list)
    recomputed: dict[str, CallInfo] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    moved: dict[str, frozenset[Moved]] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)
    grown: dict[int, Grown] = field(default_factory=dict)
    token_counts: dict[str, Any] = field(default_factory=dict)
    checks: DeferredChecks | None = None


class Use(NamedTuple):
    """One use of an operand in a call.

    Attributes:
        info: information on the call of the model, or of its encoder; empty if another part is called separately.
        step: the step of training; None outside of training.
        stream: root of all noise: that of the chip, or of the step of training.
        call_index: index of the use in the forward pass, as a part of stream keys; empty for the first use.
    """

    info: CallInfo
    step: TrainingStep | None
    stream: Stream
    call_index: tuple[int, ...]


@dataclass(eq=False)
class State:
    """The state of a converted model. All layers hold the same object, so that one assignment reaches each of them.

    Attributes:
        level: fidelity of the simulation.
        kernels: what computes on the CPU.
        seed: root of all streams.
        chip: number of the specimen of the hardware; another chip draws other noise and other faults.
        clip: clip of K and V before they are written.
        mode: `run` simulates the hardware, and `run weights` that of weights alone: K and V are exact. `bypass`
            computes every captured product exactly; `ideal` computes it from written values without rounding and
            noise; `written` does so for weights, and with noise for K and V. The observing modes compute exactly
            (`observe converters`: on crossbars) and calibrate ranges and recipes.
        rounded: True if inputs and stored values are rounded to codes; False leaves only noise and saturation.
        half_cells: True if what cells hold of weights is kept in half precision, where slices are folded.
        causal: True if some attention of the model is causal, or all of it is cross attention. Tokens then may come one
            by one, and noise of reads belongs to tokens.
        training: the steps of variation-aware training; None outside of its block.
        threads: the record of calls of each thread.
        memory: tensors whose rows are not the new tokens of a call, such as outputs of an encoder.
        users: the threads that call the model, and the one that changes its settings.
        fingerprints: what reveals that weights have changed since they were written.
        growth_told: True if a warning of weights that have grown since the calibration was raised.
    """

    level: Level = "array"
    kernels: Kernels = "torch"
    seed: int = 0
    chip: int = 0
    clip: KVClip | None = None
    mode: Mode = "run"
    rounded: bool = True
    half_cells: bool = False
    causal: bool = False
    training: TrainingSteps | None = None
    threads: Threads[Call] = field(default_factory=lambda: Threads(Call))
    memory: AttendedMemory = field(default_factory=AttendedMemory)
    users: Users = field(default_factory=Users)
    fingerprints: Fingerprints = field(default_factory=Fingerprints)
    growth_told: bool = False

    def __getstate__(self) -> dict[str, object]:
        """Return the state of a copy: in mode `run`, without training.

        While another thread is inside a block, the copy has the settings from before the block.

        Raises:
            BadInput: another thread calibrates the model.
        """
        block = self.users.foreign_block()
        if block is not None and block.unfinished:
            raise BadInput(f"another thread is inside {block.verb}, so this model cannot be copied; {block.remedy}")
        before = {} if block is None else self.users.before
        return {**vars(self), **before, "mode": "run", "training": None}

    def begin_block(self, verb: str, *, unfinished: bool = False) -> SettingsBlock:
        """Begin a block that may change settings; until `users.end` no other thread can call the model.

        Args:
            verb: the public function that changes them.
            unfinished: True if copies made meanwhile by another thread are useless, and are refused.

        Raises:
            BadInput: another thread calls the model or changes its settings.
        """
        block = SettingsBlock(verb, unfinished)
        self.users.begin(block, vars(self), SETTINGS)
        return block

    @contextmanager
    def changing(self, verb: str, *, unfinished: bool = False) -> Iterator[None]:
        """Context in which the current thread may change settings, and no other thread can call the model.

        Args:
            verb: as in `begin_block`.
            unfinished: as in `begin_block`.

        Raises:
            BadInput: another thread calls the model or changes its settings.
        """
        block = self.begin_block(verb, unfinished=unfinished)
        try:
            yield
        finally:
            self.users.end(block)

    def check_settings(self) -> None:
        """Refuse a separate call of a part of the model while another thread changes the settings.

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
        """Begin the next use of an operand.

        Args:
            operand: name of the operand.
            calls_per_forward: number of its uses in a forward pass.

        Raises:
            BadInput: a part of the model is called separately in training, where a step is a call of the whole model;
                or while another thread changes settings.
        """
        if self.users.owner is not None:
            self.check_settings()
        call = self.threads.call
        n = call.uses.get(operand, 0)
        call.uses[operand] = n + 1
        n %= calls_per_forward  # only the remainder counts, so recomputing a layer that is used once shifts nothing
        if call.active or in_backward():
            info, step = call.info, call.step
        else:
            info, step = _UNKNOWN, None
            self._check_untrained()
        if call.encoders:
            info = call.encoders[-1]
        elif call.recomputed and in_backward():  # PyTorch recomputes single layers of an encoder
            encoders = call.recomputed.items()
            info = next((encoder for prefix, encoder in encoders if operand.startswith(prefix)), info)
        stream = self.root if step is None else step.stream
        return Use(info, step, stream, (n,) if n else ())

    @property
    def root(self) -> Stream:
        """Root of all noise of the chip."""
        return _root(self.seed, self.chip, self.kernels)

    def _check_untrained(self) -> None:
        """Refuse to train a part of the model in a separate call.

        Raises:
            BadInput: the part is called with gradients inside a block of training.
        """
        if self.training is not None and torch.is_grad_enabled():
            raise BadInput(
                "a part of the model was called separately inside `with variation(model):`; a step is a call of the "
                "whole model, so call that, or use no_grad() for calls that train nothing"
            )

    @property
    def call_info(self) -> CallInfo:
        """Information on the running call of the model, or on that whose layers are recomputed for gradients.

        Inside an encoder it is that on the encoder's call; in separate calls of other parts it is empty.
        """
        call = self.threads.call
        if call.encoders:
            return call.encoders[-1]
        return call.info if call.active or in_backward() else _UNKNOWN

    @property
    def samples(self) -> int | None:
        """Number of samples in the batch; None if unknown."""
        names = current_samples()
        if names is None:
            info = self.call_info
            if info.names is None:
                return info.batch_size
            names = info.names
        return len(names)

    @contextmanager
    def set_mode(self, mode: Mode) -> Iterator[None]:
        """Context in which products are computed in this mode; afterward the mode is `run`."""
        self.mode = mode
        try:
            yield
        finally:
            self.mode = "run"
