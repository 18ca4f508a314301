"""Chunked prefill in the steady state of serving: C tokens of a new prompt join a decoding step.

B requests are in flight. A prompt of P tokens takes K = ceil(P / C) steps, and the N = G - 1 decoding steps of the
request follow, so B requests end in K + N steps, over which they are spread evenly. In no step more than one of them is
in its prefill. A chunk passes a step as one sample beside those of decoding requests; the last one makes the first
token, the others leave out what follows the last layer of the model. With the latency t of each step,

    TTFT = sum of t over the K steps of a prompt,    TPOT = mean of t over the N steps of a request,

both averaged over the requests. A request enters when another one ends, so it does not wait before its first chunk.

Source: Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve", arXiv 2403.02310.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ohmformer.cost.layers import Divided
from ohmformer.cost.machine.steps import StepPrices
from ohmformer.cost.memory.residents import find_homes
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.serving.decoding import Decoding
from ohmformer.dataflow.serving.kind_sums import sum_kinds
from ohmformer.dataflow.serving.steady_state import SteadyState, refreshed
from ohmformer.dataflow.serving.step_latency import KindTimes, step_latencies
from ohmformer.errors import BadInput, given, shown
from ohmformer.quantities import whole_number
from ohmformer.workload.request import MOST_GENERATED, ListedSteps, Steps
from ohmformer.workload.shapes import Transformer, shapes

if TYPE_CHECKING:
    from ohmformer.dataflow.serving.served import Served

Array = npt.NDArray[np.float64]


def chunked_prefill(served: Served, chunk: object) -> SteadyState:
    """The steady state of a batch of requests with chunks of `chunk` tokens.

    Raises:
        BadInput: the model, the machine or the dataflow has no chunked prefill here, the chunk is no whole number, or
            several prompts would need chunks in the same step.
    """
    size = _checked(chunk)
    decoding, table, alone = _parts(served)
    _check_machine(served, decoding)
    batch, prompt = served.passes.batch, served.passes.prompt
    size = min(size, prompt)
    if any(served.dataflow.size_of_block(tokens) != tokens for tokens in {size, prompt % size or size}):
        raise BadInput(
            f"chunked_prefill: chunk = {size}: the dataflow cuts it into blocks of "
            f"{served.dataflow.size_of_block(size)}; take a smaller chunk or larger blocks"
        )
    parts = ceil(prompt / size)
    if parts > MOST_GENERATED:
        raise BadInput(
            f"chunked_prefill: chunk = {size}: a prompt of {prompt:,} tokens takes {parts:,} chunks, at most "
            f"{MOST_GENERATED:,} are possible; take a larger chunk"
        )
    cycle = parts + decoding.steps.count
    if batch > 1 and cycle // batch < parts:
        raise BadInput(
            f"chunked_prefill: chunk = {size}: {batch} prompts of {parts} chunks each do not fit into {cycle} steps, "
            "one chunk in a step; take a larger chunk, a smaller batch, or generate more tokens"
        )
    chunks = [_Chunks(decoding, served, alone, steps) for steps in _chunks_of(table, prompt, size)]
    ahead = [number * cycle // batch for number in range(batch)]
    last = decoding.prices.last
    times = _joined(last, chunks, decoding)
    steps = step_latencies(last, served.dataflow, decoding.prices.kind_of, times, ahead)
    joules = batch * sum(each.energy(final=each is chunks[-1]) for each in chunks)
    return _state(served, steps, parts, joules + float(decoding.energies.sum() + decoding.gated.sum()))


def _state(served: Served, steps: Array, parts: int, joules: float) -> SteadyState:
    """The steady state.

    Args:
        served: the requests.
        steps: [K + N], latency of each step [s].
        parts: K, chunks of a prompt.
        joules: energy of B requests, without that of power drawn all the time and of refreshes [J].
    """
    batch, cycle = served.passes.batch, len(steps)
    work = float(steps.sum())
    slower, again = refreshed(work, served.refresh.kinds if served.refresh else ())
    period = work + slower
    first = np.arange(parts)
    starts = [(first - number * cycle // batch) % cycle for number in range(batch)]
    ttft = sum(float(steps[places].sum()) for places in starts) / batch * period / work
    joules += again + served.machine.power * period
    tokens = batch * served.passes.generate
    return SteadyState(
        batch,
        batch / period,
        tokens / period,
        work / cycle,
        (period - ttft) / (cycle - parts),
        joules / tokens,
        joules / period,
        ttft,
    )


class _Chunks:
    """Chunks of one prompt that have the same number of tokens.

    Attributes:
        count: number of chunks.
        sums: position of the first layer of a kind -> times and energies of the layer in each chunk.
        kinds: position of the first layer of a kind -> number of layers.
        after: kinds of layers after the last layer of the model, such as its head.
    """

    def __init__(self, decoding: Decoding, served: Served, alone: Placement, steps: Steps | ListedSteps) -> None:
        assert alone.choice is not None
        divided, tiles = Divided.of(steps.last, alone.choice), served.machine.used.total
        if served.passes.batch == 1:  # no other caches are there
            fixed, homes = None, find_homes(steps.last, alone.hardware, divided.distinct, tiles, 0.0)
        else:
            held = decoding.homes or decoding.prices.last.homes_by_chip
            fixed = homes = replace(held[0], phase="prefill")
        layers = divided.with_homes(homes, alone.weight_uses).placed()
        last = replace(alone, workload=steps.last, layers=layers, homes=homes)
        self.count = steps.count
        prices = StepPrices(last, steps, (tiles,), None if fixed is None else (fixed,))
        if prices.kind_of != decoding.prices.kind_of:
            raise BadInput("chunked_prefill: chunks and decoding steps differ in their layers; leave out the rules")
        self.sums, self.kinds = sum_kinds(prices, served.dataflow), prices.kinds
        final = max(place for place, layer in enumerate(steps.last.layers()) if layer.index is not None)
        self.after = {kind for kind in self.kinds if kind > final}

    def energy(self, *, final: bool) -> float:
        """Energy of all chunks [J]; `final` if the last of them makes a token."""
        total = 0.0
        for kind, sums in self.sums.items():
            joules = sums.energies + sums.gated
            if kind in self.after:
                joules = joules[-1:] if final else joules[:0]
            total += self.kinds[kind] * float(joules.sum())
        return total


def _joined(last: Placement, chunks: Sequence[_Chunks], decoding: Decoding) -> dict[int, KindTimes]:
    """Kind of layer -> its times in the chunks of a prompt, then in the decoding steps [S, K + N].

    Raises:
        BadInput: the stages of a chunk are not those of a decoding step.
    """
    found = {}
    parts = sum(each.count for each in chunks)
    for kind, step in decoding.times.items():
        layer = last.layers[kind]
        for sums in (each.sums[kind] for each in chunks):
            if not sums.alike or not sums.has_stages_of(layer):
                raise BadInput(
                    f"chunked_prefill: {layer.name}: the stages of a chunk are not those of a decoding step on this "
                    "machine; take served.steady, whose prefills run alone"
                )
        every = [*(each.sums[kind].times for each in chunks), step]
        busy, arrives, memory = (
            np.concatenate([getattr(times, name) for times in every], 1) for name in ("busy", "arrives", "memory")
        )
        absent = None
        if kind in chunks[-1].after:
            absent = np.arange(busy.shape[1]) < parts - 1
        found[kind] = KindTimes(busy, arrives, memory, step.setup, absent)
    return found


def _chunks_of(table: Transformer, prompt: int, size: int) -> list[Steps | ListedSteps]:
    """The chunks of a prompt as passes: all of `size` tokens, then a smaller one if some tokens are left."""
    whole, rest = divmod(prompt, size)
    sizes: dict[str, Any] = {"phase": "prefill", "batch": 1}
    first, last = (shapes(table, tokens=size, context=start, **sizes) for start in (0, (whole - 1) * size))
    found: list[Steps | ListedSteps] = [Steps(first, last, whole) if whole > 1 else ListedSteps((first,))]
    if rest:
        found.append(ListedSteps((shapes(table, tokens=rest, context=whole * size, **sizes),)))
    return found


def _parts(served: Served) -> tuple[Decoding, Transformer, Placement]:
    """Decoding steps with mixed contexts, the model, and the prefill of one request.

    Raises:
        BadInput: there are no decoding steps, or the passes are not those of a decoder that is known.
    """
    decoding, table, alone = served.decoding, served.passes.table, served.alone
    if decoding is None:
        raise BadInput("chunked_prefill: generate = 1: there is no decoding step to join; generate more tokens")
    if table is None or alone is None or table.kind != "decoder":
        reason = "the passes are listed" if table is None else f"{shown(table.title)} is an encoder-decoder"
        raise BadInput(f"chunked_prefill: {reason}, so its prompt has no chunks; take a table of a decoder")
    if decoding.prices.last.has_pools:
        raise BadInput(
            "hardware: units that layers share (chip.vector.units, or units of an engine) take tokens first come, "
            "first served; chunked_prefill has no steps with mixed contexts for them; leave out the chunk, or the units"
        )
    if not served.dataflow.has_closed_form or not decoding.one_recursion:
        raise BadInput(
            f"chunked_prefill: dataflow.kind = {served.dataflow.kind!r}: defines its own jobs, which say nothing of "
            "chunks; take LayerSerial() or LayerOverlap()"
        )
    return decoding.mixed if served.passes.batch > 1 else decoding, table, alone


def _check_machine(served: Served, decoding: Decoding) -> None:
    """Refuse machines on which tokens of a step share work, so that its parts do not add up.

    Raises:
        BadInput: there are several chips, a GPU runs kernels for all tokens at once, or weights are read from memories
            or loaded.
    """
    if served.machine.hardware.system is not None:
        raise BadInput(
            "hardware.system: chunked_prefill has no prices of exchanges between chips for chunks and steps together; "
            "take one chip, or served.steady, whose prefills run alone"
        )
    remedy = "take an accelerator with its weights in cells, or served.steady, whose prefills run alone"
    for role in served.machine.hardware.gpus:
        raise BadInput(
            f"hardware.{role}.kind = 'gpu': chunked_prefill has no prices of kernels for chunks and steps together; "
            + remedy
        )
    if decoding.prices.last.homes.moves_weights:
        raise BadInput(
            "hardware.projection: chunked_prefill has no prices of weights that are read or loaded once for chunks and "
            "steps together; " + remedy
        )


def _checked(chunk: object) -> int:
    """Tokens of a chunk.

    Raises:
        BadInput: it is not a whole number of 1 or more.
    """
    size = whole_number(chunk)
    if size < 1:
        raise BadInput(f"chunked_prefill: chunk is {given(chunk)}; give a whole number of 1 or more")
    return size
