"""Which group of chips holds which layers, and what each chip of a group computes.

A group is one chip, or several chips that share each of its layers. Groups hold consecutive layers, and each but the
last sends its results to the next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from ohmformer.cost import tiles
from ohmformer.cost.chips.packing import on_one_group, packed
from ohmformer.cost.chips.tensor import layer_share
from ohmformer.cost.engine_choice import EngineChoice
from ohmformer.cost.layers import Divided
from ohmformer.errors import BadInput, shown
from ohmformer.hardware.spec import Accelerator
from ohmformer.hardware.system import System
from ohmformer.workload.request import ListedSteps, Steps
from ohmformer.workload.spec import Exchange, Layer, Lookup, Norm, Op, StaticMatMul, Workload


@dataclass(frozen=True)
class Layout:
    """The layers of each group of chips.

    Attributes:
        workload: what each chip computes of its layers, with the exchanges between chips.
        ends: for each group, the position after its last layer.
        sharing: for each group, the number of its chips, which share its layers.
    """

    workload: Workload
    ends: tuple[int, ...]
    sharing: tuple[int, ...]

    @property
    def chips(self) -> int:
        """Number of chips."""
        return sum(self.sharing)

    @property
    def groups(self) -> tuple[int, ...]:
        """For each layer, the number of its group, from 0."""
        return tuple(group for group, (first, end) in enumerate(pairwise((0, *self.ends))) for _ in range(first, end))

    def of_pass(self, workload: Workload) -> Layout:
        """The layout of another pass of the same model on the same chips.

        Raises:
            BadInput: a layer cannot be shared by its chips.
        """
        return _divided_among(workload, self.ends, self.sharing)

    def steps_of(self, steps: Steps | ListedSteps) -> Steps | ListedSteps:
        """What each chip computes of decoding steps, if this is the layout of the last one.

        Raises:
            BadInput: a layer cannot be shared by its chips.
        """
        if isinstance(steps, Steps):
            shares = Steps(self.of_pass(steps.first).workload, self.workload, steps.count)
            if shares.grows_evenly:
                return shares
        first = (self.of_pass(steps.workload(index)).workload for index in range(steps.count - 1))
        return ListedSteps((*first, self.workload))

    def range_of(self, group: int) -> tuple[int, int]:
        """The positions of the first layer of a group, and after its last one."""
        return self.ends[group - 1] if group else 0, self.ends[group]

    def divided(self, choice: EngineChoice, *, singly: bool = False) -> Divided:
        """What each chip computes, before it is priced; see `Divided.of`."""
        return Divided.of(self.workload, choice, singly=singly, groups=self.groups, sharing=self.sharing)


@dataclass(frozen=True)
class SharedChips:
    """Chips that run several passes of a model, such as those of a request.

    Attributes:
        layout: which chips hold which layers in another of these passes; None if that is decided for this one.
        beside: another pass for which the chips must have room, if there is no `layout` yet.
        tiles: for each group, the number of tiles of one of its chips; empty if this pass decides it.
    """

    layout: Layout | None = None
    beside: Workload | None = None
    tiles: tuple[int, ...] = ()

    def hardware_of(self, group: int, hardware: Accelerator) -> Accelerator:
        """The accelerator, with the tiles of a chip of a group."""
        if not self.tiles or hardware.chip is None:
            return hardware
        return hardware.model_copy(update={"chip": hardware.chip.model_copy(update={"tiles": self.tiles[group]})})


ALONE = SharedChips()
"""Chips that run a single pass."""


def layout_of(workload: Workload, choice: EngineChoice, kv_sets: int, shared: SharedChips) -> Layout | None:
    """Divide a workload among the chips of a system; None for an accelerator without one.

    Args:
        workload: the operations.
        choice: the engines.
        kv_sets: see `place`.
        shared: what other passes of the model decide.

    Raises:
        BadInput: there are too few chips or too many, a layer has no room on a chip, or it cannot be shared.
    """
    system = choice.hardware.system
    if system is None:
        return None
    if shared.layout is not None:
        return shared.layout.of_pass(workload)
    passes = [workload] if shared.beside is None else [workload, shared.beside]
    for each in passes:
        _check(each, choice.hardware, system)
        _check_layers(each, workload)
    found = packed(passes, choice, kv_sets)
    return _divided_among(workload, found.ends, found.sharing)


def _divided_among(workload: Workload, ends: tuple[int, ...], sharing: tuple[int, ...]) -> Layout:
    """The layout of a workload whose groups of chips are known."""
    layers, parts = workload.layers(), []
    for (first, end), chips in zip(pairwise((0, *ends)), sharing, strict=True):
        ops = [op for layer in layers[first:end] for op in layer_share(layer, chips, workload.title)]
        parts.append(on_one_group(ops))
    for group, part in enumerate(parts[:-1]):
        part.append(_send(part, ends[group], layers, sharing[group : group + 2]))
    return Layout(replace(workload, ops=tuple(op for part in parts for op in part)), ends, sharing)


def _check(workload: Workload, hardware: Accelerator, system: System) -> None:
    """Refuse a system of chips that do not exist, and models whose layers do not follow one another.

    Raises:
        BadInput: one line with field and remedy.
    """
    if hardware.chip is None and not hardware.gpus:
        raise BadInput("hardware.system: this accelerator describes neither a chip nor a GPU; add hardware.chip")
    across = next((op for op in workload.dynamic if op.across), None)
    if across is not None:
        raise BadInput(
            f"hardware.system: {shown(workload.title)} is an encoder-decoder, all of whose decoder layers read the "
            "result of the encoder, which no link of a pipeline carries; leave system out, or take another model"
        )
    open_ended = system.groups is None and system.sharing in (None, 1)
    if open_ended and tiles.tiles_of_chip(hardware) is None and not hardware.gpus:
        raise BadInput(
            "hardware.chip.tiles: is missing, so it is unknown when a chip of hardware.system is full; add it (or "
            "chip.tiles_per_node, where a node is a chip), or give system.chips"
        )


def _check_layers(one: Workload, other: Workload) -> None:
    """Refuse passes whose layers differ, so that no layout holds for both.

    Raises:
        BadInput: they differ.
    """
    layers, others = ([layer.index for layer in each.layers()] for each in (one, other))
    if layers != others:
        raise BadInput(
            f"hardware.system: a pass of {shown(one.title)} has {len(layers)} layers (parts outside of layers "
            f"included), another one {len(others)}, or in another order; give passes of one model, or leave system out"
        )


def _send(part: list[Op], end: int, layers: tuple[Layer, ...], chips: tuple[int, ...]) -> Exchange:
    """What a group sends to the next: what its last layer makes, or what the first layer there reads.

    Args:
        part: the operations of a chip of the group.
        end: position of the first layer of the next group.
        layers: all layers of the model, as they are on one chip.
        chips: numbers of chips of both groups.
    """
    here, there = layers[end - 1], layers[end]
    values = max(_values_made(here), _values_read(there))
    number = sum(isinstance(op, Exchange) and op.layer == here.index for op in part)
    return Exchange("send", "send", here.index, "send", values, chips[0], number, -(-chips[1] // chips[0]))


def _values_made(layer: Layer) -> int:
    """Number of values that a layer makes for the next one: those of its last operation."""
    for op in reversed(layer.ops):
        match op:
            case StaticMatMul():
                return op.vectors * op.outputs
            case Norm() | Lookup():
                return op.vectors * op.width
    return 0


def _values_read(layer: Layer) -> int:
    """Number of values that a layer reads: those of its first operation."""
    for op in layer.ops:
        match op:
            case StaticMatMul():
                return op.vectors * op.inputs
            case Norm():
                return op.vectors * op.width
    return 0
