"""The machine of requests: one that has room for their prefill and for the longest cache, and both passes on it.

Of several chips, layers are divided once, for the last decoding step and the whole batch, among chips that have room
for the prefill, too. Every pass then runs on these chips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ohmformer.cost.chips.layout import ALONE, SharedChips
from ohmformer.cost.machine.machine import Machine
from ohmformer.cost.memory.homes import KV, WEIGHTS
from ohmformer.cost.memory.request_room import ChipContents, check_room
from ohmformer.cost.placement import Placement
from ohmformer.cost.tiles import tiles_of_chip
from ohmformer.dataflow.placing import place_for
from ohmformer.dataflow.spec import Dataflow
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVConditioning
from ohmformer.workload.request import RequestPasses
from ohmformer.workload.spec import Workload


@dataclass(frozen=True)
class SizedRequest:
    """The machine of a batch of requests, and two of its passes.

    Attributes:
        hardware: the accelerator, with the tiles of the machine where they decide what lives in memories.
        machine: the machine.
        prefill: the prefill, priced.
        last: the last decoding step, priced; the prefill if there are no steps.
        shared: of several chips, which layers and how many tiles each of them has.
    """

    hardware: Accelerator
    machine: Machine
    prefill: Placement
    last: Placement
    shared: SharedChips = ALONE


def size_machine(
    passes: RequestPasses, hardware: Accelerator, flow: Dataflow, kv: KVConditioning | None, options: dict[str, Any]
) -> SizedRequest:
    """Place the prefill and the last step, and build the machine that runs both.

    Args:
        passes: the passes of the requests.
        hardware: the accelerator.
        flow: the order of work in a pass.
        kv: conditioning of K and V.
        options: further arguments of `place`.

    Raises:
        BadInput: a chip has fewer tiles than both need, a memory has no room for both, or see `place`.
    """
    if hardware.system is not None:
        return _on_chips(passes, hardware, flow, kv, options)
    prefill = last = place_for(flow, passes.prefill, hardware, kv=kv, **options)
    if passes.steps:
        last = place_for(flow, passes.steps.last, hardware, kv=_kv_of(passes.steps.last, kv), **options)
    machine = _machine(prefill, last)
    sized = _with_all_tiles(hardware, machine, (prefill, last))
    if sized is not hardware:
        return size_machine(passes, sized, flow, kv, options)
    return SizedRequest(hardware, machine, prefill, last)


def _on_chips(
    passes: RequestPasses, hardware: Accelerator, flow: Dataflow, kv: KVConditioning | None, options: dict[str, Any]
) -> SizedRequest:
    """Likewise for several chips."""
    steps, beside = passes.prefill, None
    if passes.steps:
        steps, beside = passes.steps.last, passes.prefill
    shared = SharedChips(beside=beside)
    while True:
        last = place_for(flow, steps, hardware, kv=_kv_of(steps, kv), shared=shared, **options)
        shared = SharedChips(last.layout, tiles=shared.tiles)
        prefill = last
        if passes.steps:
            prefill = place_for(flow, passes.prefill, hardware, kv=kv, shared=shared, **options)
        machine = _machine(prefill, last)
        tiles = tuple(chip.used.total for chip in machine.groups)
        if shared.tiles or tiles_of_chip(hardware) is not None:
            return SizedRequest(hardware, machine, prefill, last, SharedChips(last.layout, tiles=tiles))
        shared = SharedChips(last.layout, tiles=tiles)  # a pass that needs fewer tiles uses the memories of all of them


def _machine(prefill: Placement, last: Placement) -> Machine:
    """The machine that runs the prefill and the last step.

    Raises:
        BadInput: a chip has fewer tiles than both need, or a memory has no room for both.
    """
    assert prefill.machine is not None
    assert last.machine is not None
    machine = prefill.machine.joined(last.machine)
    if last is not prefill:
        pairs = zip(_held(prefill), _held(last), machine.by_chip, strict=True)
        for one, other, chip in pairs:
            check_room(one, other, chip.used.total)
    return machine


def _held(placed: Placement) -> list[ChipContents]:
    """What a chip of each group holds in a pass."""
    assert placed.machine is not None
    divided = placed.divided()
    found = []
    for group, (chip, homes) in enumerate(zip(placed.machine.by_chip, placed.homes_by_chip, strict=True)):
        layers = divided.distinct_of(group)
        found.append(ChipContents(placed.workload, placed.hardware, layers, homes, chip.weights, chip.kv))
    return found


def _with_all_tiles(hardware: Accelerator, machine: Machine, placed: Sequence[Placement]) -> Accelerator:
    """The accelerator with the tiles of a machine, if a pass that needs fewer would use the memories of all of them."""
    chip, total = hardware.chip, machine.used.total
    if chip is None or chip.tiles is not None:
        return hardware
    fewer = [each.homes for each in placed if each.tiles < total]
    lacks_room = chip.buffer_capacity is not None and any({KV, WEIGHTS} & homes.off_chip.keys() for homes in fewer)
    if not lacks_room and not any(homes.tiles for homes in fewer):
        return hardware
    return hardware.model_copy(update={"chip": chip.model_copy(update={"tiles": total})})


def _kv_of(step: Workload, kv: KVConditioning | None) -> KVConditioning | None:
    """The conditionings of the operands of a decoding step, which need not have all operands of the prefill."""
    if not isinstance(kv, Mapping):
        return kv
    names = {op.name for op in step.dynamic}
    return {name: spec for name, spec in kv.items() if name in names}
