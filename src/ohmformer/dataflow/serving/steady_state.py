"""The steady state of serving: requests at different places in their answers share every decoding step.

B requests are in flight. In every step each of them makes one token; their places in the answer are spread evenly, so
their contexts differ. When a request has ended, a new one takes its place: its prefill runs alone, between two steps.
After N = G - 1 steps B requests have ended, and everything repeats:

    T = B T_prefill + sum of the N steps.

A request waits for the prefills of B - 1 others between its tokens: its time per output token is (T - T_prefill) / N.
The cells of K and V of each request are free for the next one. Where cells are refreshed, T is longer by the share of
time that this takes, with the mean refresh over the contexts of a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ohmformer.cost.chips.sums import homes_of_chips
from ohmformer.cost.machine.machine import Machine
from ohmformer.cost.machine.refresh import Refresh
from ohmformer.cost.memory.homes import KV, WEIGHTS, Homes
from ohmformer.cost.placement import Placement
from ohmformer.dataflow.serving.decoding import Decoding
from ohmformer.dataflow.serving.pass_work import work_of
from ohmformer.dataflow.serving.request_refresh import work_between
from ohmformer.dataflow.spec import Dataflow
from ohmformer.dataflow.timeline import gated_energy


@dataclass(frozen=True)
class SteadyState:
    """Rates of a machine that always has the same number of requests in flight.

    Attributes:
        requests: number of requests in flight.
        requests_per_s: requests that end per second.
        output_tokens_per_s: generated tokens per second.
        step_latency: mean latency of a decoding step with mixed contexts [s]; None without decoding steps.
        tpot: mean time between two tokens of a request, prefills of others included [s]; None without decoding steps.
        energy_per_token: energy of a generated token, prefill and standing power included [J].
        power: mean power [W].
        ttft: mean time from the start of a prefill to its first token [s].
    """

    requests: int
    requests_per_s: float
    output_tokens_per_s: float
    step_latency: float | None
    tpot: float | None
    energy_per_token: float
    power: float
    ttft: float


def steady_state(
    decoding: Decoding | None,
    machine: Machine,
    dataflow: Dataflow,
    batch: int,
    alone: Placement,
    again: Sequence[Refresh] = (),
) -> SteadyState:
    """The steady state of `batch` requests.

    Args:
        decoding: the decoding steps of a batch of this size; None if one token is generated.
        machine: the machine.
        dataflow: the order of work in a pass.
        batch: B, requests in flight.
        alone: the prefill of one request, priced.
        again: the refreshes of prefill and steps of a batch; empty if cells keep their values.

    Raises:
        BadInput: see `Decoding.mixed_time`.
    """
    if decoding is not None and batch > 1:
        decoding = decoding.mixed
        alone = _beside_caches(alone, decoding.homes or decoding.prices.last.homes_by_chip)
    prefill_time = work_of(alone, dataflow)
    prefill_energy = sum(alone.energy.values()) + gated_energy(alone, dataflow)
    if decoding is None:
        slower, joules = refreshed(prefill_time, again)
        rate = 1 / (prefill_time + slower)
        power = (prefill_energy + joules) * rate + machine.power
        return SteadyState(batch, rate, rate, None, None, power / rate, power, 1 / rate)
    count = decoding.steps.count
    ahead = [number * count // batch for number in range(batch)]
    stepping = decoding.mixed_time(ahead)
    work = batch * prefill_time + stepping
    slower, joules = refreshed(work, again)
    period = work + slower
    joules += batch * prefill_energy + float(decoding.energies.sum() + decoding.gated.sum()) + machine.power * period
    tokens, ttft = batch * (count + 1), prefill_time * period / work
    return SteadyState(
        batch,
        batch / period,
        tokens / period,
        stepping / count,
        (period - ttft) / count,
        joules / tokens,
        joules / period,
        ttft,
    )


def _beside_caches(alone: Placement, homes: Sequence[Homes]) -> Placement:
    """The prefill of a request while the caches of other requests fill the memories.

    Args:
        alone: the prefill, priced.
        homes: for each group of chips, what lives in the memories of one of its chips in the steps.
    """
    if not any(each.off_chip.keys() & {KV, WEIGHTS} for each in homes):
        return alone
    beside = tuple(replace(each, phase=alone.homes.phase) for each in homes)
    layers = alone.divided().with_homes_of(beside, alone.weight_uses).placed()
    if alone.layout is None:
        return replace(alone, layers=layers, homes=beside[0])
    return replace(alone, layers=layers, homes=homes_of_chips(beside, alone.layout.sharing), homes_of=beside)


def refreshed(work: float, kinds: Sequence[Refresh]) -> tuple[float, float]:
    """Time [s] and energy [J] of the refreshes during `work` seconds of computing, on average over many periods."""
    if not kinds:
        return 0.0, 0.0
    times = work / work_between(kinds) / len(kinds)
    joules = sum(refresh.joules + refresh.static for refresh in kinds)
    return times * sum(refresh.seconds for refresh in kinds), times * joules
