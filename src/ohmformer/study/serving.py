"""Computes what requests take at the points of a study, with `model.seq_len` as prompt and `model.generate`."""

from __future__ import annotations

from collections.abc import Callable

from ohmformer.dataflow.serving.serve import serve
from ohmformer.dataflow.serving.served import Served
from ohmformer.errors import BadInput, shown
from ohmformer.hardware.price_notes import mitigation_notes
from ohmformer.study.chips import chip_notes, served_chips
from ohmformer.study.cost import (
    MANY,
    cost_options,
    finite,
    load_notes,
    price_notes,
    table_name,
    wear_result,
)
from ohmformer.study.failures import named_point
from ohmformer.study.results.costs import EnergyBy, PartCost, ServedResult, SteadyResult
from ohmformer.study.results.document import SCHEMA
from ohmformer.study.results.key import versions
from ohmformer.study.results.part import made
from ohmformer.study.results.priced_choice import rules_with_choice, study_key
from ohmformer.study.results.spec import Chosen, ServedPoint, StudyServed
from ohmformer.study.spec import CostSettings, Study
from ohmformer.terminal.progress import bar
from ohmformer.workload.request import RequestPasses, table_passes

MANY_TOKENS = 1000
"""Number of generated tokens of all points from which on a progress bar is shown; pricing them takes about 0.5 s."""


def served_of(settings: CostSettings, chosen: Chosen | None = None) -> Served:
    """The requests of a point.

    Args:
        settings: the point.
        chosen: what calibration chose for K, V and weights.

    Raises:
        BadInput: lengths are missing, the model does not support them, or the accelerator has no prices.
    """
    options = cost_options(settings)
    if chosen is not None:
        options |= {"rules": dict(rules_with_choice(settings.rules, chosen))} | ({"kv": chosen.kv} if chosen.kv else {})
    try:
        return serve(_passes(settings), settings.hardware, dataflow=settings.dataflow, **options)
    except BadInput as error:
        raise BadInput(
            f"mitigation.{error}" if str(error).startswith(("clip", "kv", "weights.")) else str(error)
        ) from error


def _passes(settings: CostSettings) -> RequestPasses:
    model = settings.model
    if model.generate is None:
        raise BadInput("model.generate: is missing; say with --generate how many tokens each request generates")
    for field, plain in (("phase", None), ("context", 0), ("steps", 1)):
        if (value := getattr(model, field)) != plain and (field, value) != ("phase", "prefill"):
            raise BadInput(f"model.{field} = {shown(value)}: a request has a prefill and then its steps; leave it out")
    name = table_name(settings)
    if name is None:
        from ohmformer.study.default_inputs import traced_passes

        return traced_passes(model, settings.task, settings.rules, model.generate)
    if model.seq_len is None:
        raise BadInput("model.seq_len: is missing; say with --prompt how many tokens a prompt has")
    return table_passes(name, model.seq_len, model.generate, model.batch)


def served_result(settings: CostSettings, report: Callable[[], None] = lambda: None) -> ServedResult:
    """What the requests of a point take.

    Args:
        settings: the point.
        report: is called for each token that a request generates, to show progress.

    Raises:
        BadInput: as `served_of`, or a number is not finite.
    """
    served, options = served_of(settings), settings.cost
    report()
    if served.decoding is not None:
        served.decoding.report = report
    worn = served.first_worn(options.rate, leveling=options.leveling, spare=options.spare)
    passes, machine = served.passes, served.machine
    splits = {kind: served.energy_by(kind) for kind in ("component", "operation", "engine")}
    last = served.decoding.prices.last if served.decoding else served.prefill
    return made(
        ServedResult,
        prompt=passes.prompt,
        generate=passes.generate,
        batch=passes.batch,
        ttft_s=served.ttft,
        tpot_s=served.tpot,
        tpot_first_s=served.first_tpot,
        tpot_last_s=served.last_tpot,
        latency_s=served.latency,
        energy_J=served.energy,
        energy_per_token_J=served.energy_per_token,
        power_W=served.power,
        area_m2=served.area,
        output_tokens_per_s=served.output_tokens_per_s,
        requests_per_s=served.requests_per_s,
        lifetime_s=finite(worn.seconds) if worn else None,
        lifetime=wear_result(worn),
        energy_by=made(EnergyBy, "energy_by.", **splits),
        parts=tuple(
            made(PartCost, "parts.", name=part.name, latency_s=part.seconds, energy_J=part.joules, tokens=part.tokens)
            for part in served.parts()
        ),
        steady=_steady(served, settings.model.chunk),
        load=served.loads,
        counts={
            "arrays": sum(machine.arrays.values()),
            "arrays_per_polarity": machine.arrays_per_polarity,
            "tiles": machine.used.total,
        },
        chips=served_chips(served),
        digital_token_share=last.digital_token_share,
    )


def _steady(served: Served, chunk: int | None) -> SteadyResult | None:
    """The steady state, with chunked prefill if `chunk` is a number of tokens; None where it is unknown."""
    steady = served.steady if chunk is None else served.chunked_prefill(chunk)
    if steady is None:
        return None
    return made(
        SteadyResult,
        "steady.",
        requests=steady.requests,
        requests_per_s=steady.requests_per_s,
        output_tokens_per_s=steady.output_tokens_per_s,
        chunk=chunk,
        ttft_s=steady.ttft,
        step_s=steady.step_latency,
        tpot_s=steady.tpot,
        energy_per_token_J=steady.energy_per_token,
        power_W=steady.power,
    )


def study_served(study: Study[CostSettings]) -> StudyServed:
    """What the requests of all points of a study take.

    Raises:
        BadInput: a point cannot be served; one line with the file, the field and the remedy.
    """
    found, tokens = [], sum(point.settings.model.generate or 0 for point in study.points)
    with bar("tokens", tokens, show=tokens >= MANY_TOKENS or len(study.points) >= MANY) as display:
        for point in study.points:
            with named_point(study, point):
                cost = served_result(point.settings, display.advance)
            found.append(ServedPoint(set=point.set, label=point.label, cost=cost))
    settings = [point.settings for point in study.points]
    return StudyServed(
        schema=SCHEMA,
        study=study.name,
        key=study_key((point, None) for point in settings),
        versions=versions(),
        points=tuple(found),
        notes=(
            *mitigation_notes((each.hardware, each.mitigation) for each in settings),
            *load_notes(settings, [point.cost for point in found]),
            *price_notes(settings),
            *chip_notes([point.cost for point in found]),
        ),
    )
