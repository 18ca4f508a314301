"""Types of the costs of a point, in results files: of one pass, and of served requests. Free of torch."""

from __future__ import annotations

from pydantic import Field

from ohmformer.study.results.part import Count, Number, Part, Text


class EnergyBy(Part):
    """Energy by component, operation and engine [J]."""

    component: dict[Text, Number]
    operation: dict[Text, Number]
    engine: dict[Text, Number]


class Wear(Part):
    """The quantities from which a lifetime was computed.

    Attributes:
        role: role of the cells that wear out first; empty where no cell is rewritten.
        rate_per_s: passes per second.
        writes_per_cell_s: writes of one cell per second.
        pulses_per_write: pulses of one write.
        endurance: pulses that a cell stands; None without end.
        endurance_source: where that number comes from.
        arrays: `shared` by all layers, or each layer's own.
    """

    role: Text
    rate_per_s: Number
    writes_per_cell_s: Number
    pulses_per_write: Number
    endurance: Number | None
    endurance_source: Text
    arrays: Text


class ChipsResult(Part):
    """The chips of a system of several, for one pass, for all decoding steps of a point, or for all passes of requests.

    Attributes:
        count: number of chips.
        groups: number of groups of chips that form a pipeline.
        sharing: number of chips of the largest group, which share its layers.
        largest_area_m2: area of the largest chip.
        links_B: bytes that all chips send over their links.
    """

    count: Count
    groups: Count
    sharing: Count
    largest_area_m2: Number
    links_B: Number


class CostResult(Part):
    """The cost of one point, in SI units; None for a value that is unknown or infinite.

    Attributes:
        throughput_per_s: samples per second. A sample is done when all its passes are: one pass over its tokens, or all
            decoding steps of the point.
        tokens_per_s: new tokens per second: those of a sample, or one for each decoding step.
        load: link ("network", "tile memory") -> bytes that pass in the stage that loads it most, over those that its
            limit allows, before it slows the stage; empty where no limit is known.
        chips: the chips; None if there is one.
        digital_token_share: share of the tokens of K and V that no cell holds in the last pass; None if no K and V
            have digital tokens. The key in JSON is `digital_tokens`.
    """

    omitted_at_default = frozenset({"digital_token_share"})

    latency_s: Number
    energy_J: Number
    power_W: Number
    area_m2: Number
    throughput_per_s: Number
    tokens_per_s: Number
    efficiency_op_per_J: Number
    lifetime_s: Number | None
    lifetime: Wear | None
    utilization: dict[Text, Number]
    energy_by: EnergyBy
    critical_path_s: dict[Text, Number]
    buffer_B: dict[Text, Number]
    load: dict[Text, Number]
    counts: dict[Text, Number]
    chips: ChipsResult | None = None
    digital_token_share: Number | None = Field(default=None, alias="digital_tokens")


class PartCost(Part):
    """Time and energy of a part of served requests, for the whole batch.

    Attributes:
        name: prefill, first step, mean step, last step or all.
        latency_s: time.
        energy_J: energy, standing power included.
        tokens: generated tokens.
    """

    name: Text
    latency_s: Number
    energy_J: Number
    tokens: Count


class SteadyResult(Part):
    """Rates of a machine with the same number of requests in flight all the time, at different places in their answers.

    Attributes:
        requests: requests in flight.
        requests_per_s: requests that end per second.
        output_tokens_per_s: generated tokens per second.
        chunk: tokens of a chunk of chunked prefill; None if prefills run alone, between two steps.
        ttft_s: mean time from the start of a prefill to its first token.
        step_s: mean time of a step; None if one token is generated.
        tpot_s: mean time between two tokens of a request, prefills of others included; None likewise.
        energy_per_token_J: energy of a generated token.
        power_W: mean power.
    """

    requests: Count
    requests_per_s: Number
    output_tokens_per_s: Number
    chunk: Count | None
    ttft_s: Number
    step_s: Number | None
    tpot_s: Number | None
    energy_per_token_J: Number
    power_W: Number


class ServedResult(Part):
    """What a batch of requests takes on one machine, in SI units; None for a value that is unknown or infinite.

    Attributes:
        prompt: tokens of the prompt.
        generate: generated tokens of each request.
        batch: requests that start together.
        ttft_s: time to first token.
        tpot_s: mean time per further token; None, as the next two, if one token is generated.
        tpot_first_s: time of the second token.
        tpot_last_s: time of the last token.
        latency_s: time from the start to the last token.
        energy_J: energy of all requests.
        energy_per_token_J: energy of all requests divided by their generated tokens.
        power_W: mean power.
        area_m2: area of the machine.
        output_tokens_per_s: generated tokens per second, prefill included.
        requests_per_s: requests per second, if one batch follows another.
        lifetime_s: time until the first cells wear out.
        lifetime: what decides it; a pass is a batch of requests.
        energy_by: the energy by component, operation and engine.
        parts: prefill, decoding steps, and all.
        steady: the steady state; None if the prefill of a single request is unknown.
        load: as that of `CostResult`, of all passes.
        counts: arrays and tiles.
        chips: the chips; None if there is one.
        digital_token_share: as that of `CostResult`, in the last decoding step.
    """

    omitted_at_default = frozenset({"digital_token_share"})

    prompt: Count
    generate: Count
    batch: Count
    ttft_s: Number
    tpot_s: Number | None
    tpot_first_s: Number | None
    tpot_last_s: Number | None
    latency_s: Number
    energy_J: Number
    energy_per_token_J: Number
    power_W: Number
    area_m2: Number
    output_tokens_per_s: Number
    requests_per_s: Number
    lifetime_s: Number | None
    lifetime: Wear | None
    energy_by: EnergyBy
    parts: tuple[PartCost, ...]
    steady: SteadyResult | None
    load: dict[Text, Number]
    counts: dict[Text, Number]
    chips: ChipsResult | None = None
    digital_token_share: Number | None = Field(default=None, alias="digital_tokens")
