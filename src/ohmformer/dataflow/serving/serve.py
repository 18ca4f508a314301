"""`serve`: what a request of language generation takes on one machine, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ohmformer.cost.machine.arguments import check_cost_arguments
from ohmformer.cost.machine.machine import Machine
from ohmformer.cost.memory.homes import KV, WEIGHTS
from ohmformer.cost.memory.request_room import check_room
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.closed_form import latency
from ohmformer.dataflow.jobs import check_size
from ohmformer.dataflow.placing import place_for
from ohmformer.dataflow.serving.decoding import Decoding
from ohmformer.dataflow.serving.served import Served
from ohmformer.dataflow.spec import Dataflow, LayerSerial
from ohmformer.dataflow.timeline import build_timeline, gated_energy
from ohmformer.errors import BadInput, check_type, given
from ohmformer.hardware.rules import Rules
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVClip, KVConditioning, WeightMitigation
from ohmformer.workload.request import RequestPasses, listed_passes, table_passes
from ohmformer.workload.shapes import Transformer
from ohmformer.workload.spec import Workload


def serve(
    model: Transformer | str | tuple[Workload, Any] | RequestPasses,
    hardware: Accelerator,
    *,
    prompt: int | None = None,
    generate: int | None = None,
    batch: int | None = None,
    dataflow: Dataflow | None = None,
    clip: KVClip | None = None,
    rules: Rules | None = None,
    weights: WeightMitigation | None = None,
    kv: KVConditioning | None = None,
) -> Served:
    """Time, energy, area and wear of requests that a machine of fixed size serves: one prefill, then decoding steps.

    The machine is sized once, for the longest cache of the requests. What lives in which memory while it decodes is
    decided for the last step, whose cache is the longest. All requests of the batch start together.

    Args:
        model: the name of a table of dimensions ('gpt2'), a `Transformer`, or workloads: (prefill, list of decoding
            steps), which say the lengths themselves.
        hardware: an accelerator whose engines and chip have prices.
        prompt: tokens of the prompt; for an encoder-decoder, of the source.
        generate: generated tokens of each request. The prefill makes the first one.
        batch: number of requests; by default 1.
        dataflow: by default `LayerSerial()`.
        clip: see `simulate`.
        rules: see `simulate`.
        weights: see `simulate`.
        kv: see `simulate`.

    Raises:
        BadInput: the model generates no tokens or does not support the lengths, a price is missing, the chip is too
            small, or an argument has the wrong type.
    """
    passes = _passes(model, prompt, generate, batch)
    check_cost_arguments("serve", passes.prefill, hardware, clip, weights)
    remedy = "LayerSerial() or SequenceBlocking(block=64)"
    check_type("serve", "dataflow", dataflow, (Dataflow, type(None)), remedy)
    flow = dataflow or LayerSerial()
    options: dict[str, Any] = {"clip": clip, "rules": rules, "weights": weights}
    prefill = place_for(flow, passes.prefill, hardware, kv=kv, **options)
    last = prefill
    if passes.steps:
        last = place_for(flow, passes.steps.last, hardware, kv=_kv_of(passes.steps.last, kv), **options)
    machine = _machine(prefill, last)
    sized = _with_all_tiles(hardware, machine, (prefill, last))
    if sized is not hardware:
        return serve(passes, sized, dataflow=flow, kv=kv, **options)
    decoding = Decoding(machine, flow, last, passes.steps) if passes.steps else None
    alone = None
    if passes.alone is not None:
        single = prefill if passes.batch == 1 else place_for(flow, passes.alone, hardware, kv=kv, **options)
        alone = _work(single, flow), sum(single.energy.values()) + gated_energy(single, flow)
    return Served(passes, machine, flow, prefill, decoding, _work(prefill, flow), alone)


def _machine(prefill: Placement, last: Placement) -> Machine:
    """The machine that runs the prefill and the last step.

    Raises:
        BadInput: the chip has fewer tiles than both need, or a memory has no room for both.
    """
    assert prefill.machine is not None
    assert last.machine is not None
    machine = prefill.machine.joined(last.machine)
    if last is not prefill:
        check_room(prefill, last, machine.used.total)
    return machine


def _with_all_tiles(hardware: Accelerator, machine: Machine, placed: Sequence[Placement]) -> Accelerator:
    """The accelerator with the tiles of a machine, if a pass that needs fewer lacks room in the memories of its own."""
    chip, total = hardware.chip, machine.used.total
    if chip is None or chip.tiles is not None or chip.buffer_capacity is None:
        return hardware
    if not any(each.tiles < total and {KV, WEIGHTS} & each.homes.off_chip.keys() for each in placed):
        return hardware
    return hardware.model_copy(update={"chip": chip.model_copy(update={"tiles": total})})


def _kv_of(step: Workload, kv: KVConditioning | None) -> KVConditioning | None:
    """The conditionings of the operands of a decoding step, which need not have all operands of the prefill."""
    if not isinstance(kv, Mapping):
        return kv
    names = {op.name for op in step.dynamic}
    return {name: spec for name, spec in kv.items() if name in names}


def _work(placed: Placement, dataflow: Dataflow) -> float:
    """The time of computing of a pass [s]: from the closed form where there is one."""
    placement = replace(placed, refresh=None)
    if dataflow.has_closed_form:
        return latency(placement, dataflow)
    check_size(placement, dataflow)
    return build_timeline(placement, dataflow).latency


def _passes(model: Any, prompt: Any, generate: Any, batch: Any) -> RequestPasses:
    """The passes of the requests that the arguments describe.

    Raises:
        BadInput: lengths are missing, or given twice.
    """
    lengths = {"prompt": prompt, "generate": generate, "batch": batch}
    if isinstance(model, RequestPasses | tuple | list):
        named = next((name for name, value in lengths.items() if value is not None), None)
        if named is not None:
            raise BadInput(f"serve: {named} = {lengths[named]}: the workloads say it; leave it out")
        if isinstance(model, RequestPasses):
            return model
        if len(model) != 2:
            raise BadInput(f"serve: model is {given(model)}; give (prefill, list of decoding steps)")
        return listed_passes(*model)
    for name in ("prompt", "generate"):
        if lengths[name] is None:
            raise BadInput(f"serve: {name}: is missing; give a number of tokens")
    return table_passes(model, prompt, generate, 1 if batch is None else batch)
