"""Placements of made-up stages: pipelines without hardware behind them."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

from hypothesis import strategies as st

from ohmformer.cost.attention.seen_keys import KeysPerQuery, KeyTerm, KeyTimes, PerQueryCost
from ohmformer.cost.layers import PlacedLayer
from ohmformer.cost.memory.homes import Homes
from ohmformer.cost.placement import Placement
from ohmformer.cost.stage import Stage
from ohmformer.dataflow.spec import LayerSerial, SequenceBlocking
from ohmformer.hardware.entries import load
from ohmformer.hardware.spec import Accelerator
from ohmformer.workload.spec import Norm, Workload

HARDWARE = load("xformer_tvlsi_2023")
assert isinstance(HARDWARE, Accelerator)
SOMETHING = Homes(off_chip={"weights": 1.0})
"""Something off the chip, so that stages can wait for the memory there."""
NAMES = ("qkv", "conditioning", "write", "key", "value", "output", "ffn1")


def stage(name: str, **fields: Any) -> Stage:
    engine = "attention" if name in ("conditioning", "write", "key", "value") else "projection"
    return Stage(name, engine, f"{engine}.{name}", shared=fields.pop("shared", engine == "attention"), **fields)


def placement(
    stages: list[Stage],
    *,
    tokens: int = 10,
    batch: int = 1,
    layers: int = 2,
    barrier: int | None = None,
    gather: int | None = None,
) -> Placement:
    work = Workload("made up", "encode", batch, tokens, 0, False, (Norm("x", "x", 0, batch * tokens, 1),))
    placed = tuple(
        PlacedLayer(f"layer {i}", tokens, tuple(stages), barrier, None, (1, tokens, tokens), gather)
        for i in range(layers)
    )
    return Placement(work, HARDWARE, placed, {}, 0, 0, 0.0, 0.0, (), homes=SOMETHING)


times = st.floats(0, 5, allow_nan=False).map(lambda value: round(value, 3))


@st.composite
def stages(draw: st.DrawFn) -> list[Stage]:
    """One to seven stages of unequal times; shared arrays or not."""
    count = draw(st.integers(1, len(NAMES)))
    shared = draw(st.booleans())
    found = []
    for name in NAMES[:count]:
        fields: dict[str, Any] = {"fixed": draw(times), "per_token": draw(times), "floor": draw(times)}
        fields["cap"] = draw(st.sampled_from([inf, 3.0]))
        fields["turn"] = draw(st.sampled_from([inf, inf, 2.0, 5.0]))
        if fields["cap"] == fields["turn"] == inf:
            fields["off_chip"] = fields["per_token"] * draw(st.sampled_from([0.0, 0.0, 0.3, 1.0]))
        found.append(stage(name, shared=shared and name in ("write", "key", "value"), energy={"array": 1.0}, **fields))
    return found


def _by_keys(one: Stage, tokens: int) -> Stage:
    """The stage with times that rise with the keys that tokens see, if it has neither turns nor a cap."""
    if one.cap < inf or one.turn < inf or one.off_chip or tokens == 1:
        return one
    parts = (PerQueryCost(one.per_token), PerQueryCost(0.1, (KeyTerm(0.3, 1, 5), KeyTerm(one.per_token, 4, inf))))
    times = KeyTimes(KeysPerQuery(3, tokens, 1), parts)
    return replace(one, by_keys=times, per_token=times.total / tokens)


def slower(one: Stage, factor: float) -> Stage:
    """The stage with all its times multiplied by a factor."""
    times = {name: getattr(one, name) * factor for name in ("fixed", "per_token", "floor", "off_chip")}
    if one.by_keys is not None:
        parts = tuple(part.times(factor) for part in one.by_keys.parts)
        return replace(one, by_keys=KeyTimes(one.by_keys.seen, parts), **times)
    return replace(one, **times)


WAITS = st.sampled_from([(None, None), (3, None), (3, 1), (3, 0), (3, 2)])
"""Which stages wait for all blocks: none, queries, or also what removes the mean of all tokens."""


@st.composite
def made_up(draw: st.DrawFn, *, most_layers: int = 6) -> Placement:
    """Random pipelines with shared and own units, sets of cells, softmax units, waits, and any number of layers."""
    pipeline = draw(stages())
    barrier, gather = draw(WAITS) if len(pipeline) > 3 else (None, None)
    later = draw(st.sampled_from([(), (5,), (6,), (5, 6)])) if len(pipeline) == len(NAMES) else ()
    sizes = {"tokens": draw(st.integers(1, 11)), "batch": draw(st.integers(1, 3))}
    pipeline = [_by_keys(one, sizes["tokens"]) if draw(st.integers(0, 3)) == 3 else one for one in pipeline]
    found = placement(pipeline, barrier=barrier, gather=gather, layers=draw(st.integers(1, most_layers)), **sizes)
    softmax = draw(st.sampled_from([(), (3,), (3, 5)])) if len(pipeline) > 5 else ()
    kept = draw(st.booleans())
    fields: dict[str, Any] = {"softmax": softmax, "kept": kept, "later_barriers": later}
    layers = tuple(replace(layer, **fields) for layer in found.layers)
    softmax_sets = draw(st.sampled_from(["one", "per_layer"]))
    return replace(found, layers=layers, kv_sets=draw(st.sampled_from([1, 2])), softmax_sets=softmax_sets)


def dataflows(*, largest_block: int) -> st.SearchStrategy[LayerSerial | SequenceBlocking]:
    """Dataflows of both kinds, in all their variants."""
    batching = st.sampled_from(["pipelined", "serial"])
    dependencies = st.sampled_from(["exact", "published"])
    blocks = st.integers(1, largest_block)
    blocking = st.builds(SequenceBlocking, block=blocks, dependencies=dependencies, batching=batching)
    return st.one_of(st.builds(LayerSerial, batching=batching), blocking)
