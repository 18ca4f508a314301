"""`serve`: what a request of language generation takes on one machine, in one call."""

from __future__ import annotations

from typing import Any

from ohmformer.cost.machine.arguments import check_cost_arguments
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.jobs import MOST_JOBS, count_jobs, waits_in_pools
from ohmformer.dataflow.placing import place_for
from ohmformer.dataflow.serving.decoding import Decoding
from ohmformer.dataflow.serving.pass_work import work_of
from ohmformer.dataflow.serving.served import Served
from ohmformer.dataflow.serving.sizing import size_machine
from ohmformer.dataflow.serving.step_latency import check_work
from ohmformer.dataflow.spec import Dataflow, LayerSerial
from ohmformer.errors import BadInput, check_type, given
from ohmformer.hardware.rules import Rules
from ohmformer.hardware.spec import Accelerator
from ohmformer.mitigation.spec import KVClip, KVConditioning, WeightMitigation
from ohmformer.workload.request import RequestPasses, Steps, listed_passes, table_passes
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

    The machine is sized once, for the longest cache of the requests; of several chips, it is decided once which layers
    each of them holds. What lives in which memory is decided for each
    pass: a growing cache moves weights, and later itself, from the memories of tiles off the chip. All requests of the
    batch start together.

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
    sized = size_machine(passes, hardware, flow, kv, options)
    if passes.steps and waits_in_pools(sized.last, flow):
        _check_jobs(sized.last, flow, passes.steps.count)
    elif isinstance(passes.steps, Steps) and flow.has_closed_form:
        check_work(sized.last, flow, passes.steps.count)
    decoding = Decoding(sized.machine, flow, sized.last, passes.steps) if passes.steps else None
    alone = sized.prefill if passes.alone is not None else None
    if passes.alone is not None and passes.batch > 1:
        alone = place_for(flow, passes.alone, sized.hardware, kv=kv, shared=sized.shared, **options)
    return Served(passes, sized.machine, flow, sized.prefill, decoding, work_of(sized.prefill, flow), alone)


def _check_jobs(last: Placement, dataflow: Dataflow, steps: int) -> None:
    """Refuse decoding steps that the event engine cannot compute in seconds.

    Raises:
        BadInput: they have more than `MOST_JOBS` jobs.
    """
    jobs = steps * count_jobs(last, dataflow)
    if jobs > MOST_JOBS:
        raise BadInput(
            f"serve: generate = {steps + 1:,}: takes {jobs:,} jobs in the event engine, which times units that layers "
            f"share (chip.vector.units, or units of an engine); at most {MOST_JOBS:,} jobs are possible: generate "
            "fewer tokens, lower batch, or leave these units out"
        )


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
