"""Serving: every step is that of a simulation of its own, on a machine that is sized once."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import ohmformer as of

CASES: list[tuple[str, str, int, of.Dataflow]] = [
    ("gpt2", "nvm_ideal", 1, of.LayerSerial()),
    ("gpt2", "nvm_ideal", 3, of.LayerOverlap(softmax="shared")),
    ("gpt2", "nvm_ideal", 3, of.LayerOverlap()),
    ("gpt2", "xformer_tvlsi_2023", 3, of.SequenceBlocking(block=16)),
    ("gpt2", "xformer_tvlsi_2023", 2, of.LayerOverlap(kv_cells="double")),
    ("gpt2", "xformer_tvlsi_2023", 3, of.LayerSerial(batching="serial")),
    ("gpt2", "puma_asplos_2019", 2, of.LayerSerial()),
    ("gpt2", "sram_iso_area", 2, of.LayerSerial()),
    ("gpt2", "clipformer_tcad_2024", 1, of.LayerSerial()),
    ("gpt2", "h100_sxm", 4, of.LayerSerial()),
    ("t5-base", "nvm_ideal", 2, of.LayerSerial()),
    ("t5-base", "xformer_tvlsi_2023", 2, of.LayerOverlap()),
]


@pytest.mark.parametrize(("model", "name", "batch", "flow"), CASES, ids=str)
def test_passes_equal_simulations_step_by_step(model: str, name: str, batch: int, flow: of.Dataflow) -> None:
    hardware = of.load(name)
    served = of.serve(model, hardware, prompt=70, generate=4, batch=batch, dataflow=flow)
    mixed = model == "t5-base"
    prefill = of.simulate(of.shapes(model, tokens=70, batch=batch, phase="prefill"), hardware, flow)
    assert served.ttft == pytest.approx(prefill.latency, rel=1e-9)
    dynamic = prefill.energy - prefill.placement.power * prefill.latency
    assert served.prefill_energy == pytest.approx(dynamic + served.machine.power * prefill.latency, rel=1e-9)
    for step in range(3):
        sizes: dict[str, Any] = {"context": 1 + step, "tokens": 70} if mixed else {"context": 70 + step}
        run = of.simulate(of.shapes(model, phase="decode", batch=batch, **sizes), hardware, flow)
        assert served.step_latency[step] == pytest.approx(run.latency, rel=1e-9)
        dynamic = run.energy - run.placement.power * run.latency
        assert served.step_energy[step] == pytest.approx(dynamic + served.machine.power * run.latency, rel=1e-9)
        assert served.timeline(step).latency == pytest.approx(run.latency, rel=1e-9)
        assert served.timeline(step).energy == pytest.approx(float(served.step_energy[step]), rel=1e-9)


def test_sums_and_rates() -> None:
    served = of.serve("gpt2", of.load("nvm_ideal"), prompt=20, generate=11, batch=2)
    steps = served.step_latency
    assert len(steps) == 10
    assert served.latency == pytest.approx(served.ttft + steps.sum())
    assert served.tpot == pytest.approx((served.latency - served.ttft) / 10)
    assert (served.first_tpot, served.last_tpot) == (steps[0], steps[-1])
    assert served.tokens == 22
    assert served.output_tokens_per_s == pytest.approx(22 / served.latency)
    assert served.requests_per_s == pytest.approx(2 / served.latency)
    assert served.energy_per_token == pytest.approx(served.energy / 22)
    for kind in ("component", "operation", "engine"):
        assert sum(served.energy_by(kind).values()) == pytest.approx(served.energy, rel=1e-12)


def test_one_token_takes_the_prefill_alone() -> None:
    served = of.serve("gpt2", of.load("nvm_ideal"), prompt=20, generate=1, batch=2)
    assert (served.tpot, served.first_tpot, served.last_tpot, len(served.step_latency)) == (None, None, None, 0)
    assert served.latency == served.ttft
    assert [part.name for part in served.parts()] == ["prefill", "all"]
    steady = served.steady
    assert steady is not None
    assert steady.tpot is None
    alone = of.simulate(of.shapes("gpt2", tokens=20, phase="prefill"), of.load("nvm_ideal"))
    assert steady.requests_per_s == pytest.approx(1 / alone.latency)


def test_the_machine_is_sized_for_the_longest_cache() -> None:
    hardware = of.load("nvm_ideal")
    served = of.serve("gpt2", hardware, prompt=100, generate=200, batch=2)
    longest = of.simulate(of.shapes("gpt2", phase="decode", context=298, batch=2), hardware)
    assert served.area == longest.area
    assert served.machine.power == longest.placement.power
    assert served.machine.arrays == longest.placement.arrays
    assert served.area > of.simulate(of.shapes("gpt2", phase="decode", context=100, batch=2), hardware).area


def test_stored_queries_take_the_cells_of_the_prefill() -> None:
    """X-Former stores Q, of which the prefill has as many as the prompt, and a decoding step one."""
    hardware = of.load("xformer_tvlsi_2023")
    for role in ("key", "value"):
        hardware = of.replace(hardware, f"attention.{role}.resident", None)
    served = of.serve("gpt2", hardware, prompt=600, generate=200)
    prefill = of.place(of.shapes("gpt2", tokens=600, phase="prefill"), hardware)
    last = of.place(of.shapes("gpt2", phase="decode", context=798), hardware)
    assert served.machine.arrays["attention.key"] == prefill.arrays["attention.key"] > last.arrays["attention.key"]
    assert (
        served.machine.arrays["attention.value"] == last.arrays["attention.value"] > prefill.arrays["attention.value"]
    )
    assert served.area >= max(prefill.area, last.area)


def test_an_encoder_decoder_holds_both_stacks() -> None:
    hardware = of.load("nvm_ideal")
    served = of.serve("t5-base", hardware, prompt=300, generate=300)
    prefill = of.place(of.shapes("t5-base", tokens=300, phase="prefill"), hardware)
    assert served.machine.arrays["projection"] == prefill.arrays["projection"]
    assert served.machine.arrays["attention.key"] > prefill.arrays["attention.key"]


def test_longer_requests_cost_more() -> None:
    hardware = of.load("xformer_tvlsi_2023")
    served = [of.serve("gpt2", hardware, prompt=n, generate=g) for n, g in ((50, 20), (90, 20), (90, 40))]
    for name in ("ttft", "latency", "energy", "area"):
        values = [getattr(each, name) for each in served]
        assert values == sorted(values), name
    assert all(np.diff(each.step_latency).min() >= 0 for each in served)


def test_a_request_continues_another() -> None:
    """Steps depend on the length of the cache alone, so prompt and generated tokens are interchangeable for them."""
    hardware = of.replace(of.load("nvm_ideal"), "title", "x")
    long, late = (of.serve("gpt2", hardware, prompt=p, generate=g) for p, g in ((60, 41), (80, 21)))
    assert long.step_latency[20:] == pytest.approx(late.step_latency, rel=1e-12)
    assert long.step_energy[20:] == pytest.approx(late.step_energy, rel=1e-12)


def test_workloads_give_what_the_table_gives() -> None:
    hardware, flow = of.load("nvm_ideal"), of.LayerOverlap()
    prefill = of.shapes("gpt2", tokens=40, phase="prefill", batch=2)
    steps = [of.shapes("gpt2", phase="decode", context=40 + n, batch=2) for n in range(9)]
    listed = of.serve((prefill, steps), hardware, dataflow=flow)
    table = of.serve("gpt2", hardware, prompt=40, generate=10, batch=2, dataflow=flow)
    assert listed.step_latency == pytest.approx(table.step_latency, rel=1e-12)
    assert listed.energy == pytest.approx(table.energy, rel=1e-12)
    assert listed.area == table.area
    assert listed.steady is None
    assert table.steady is not None


def test_steps_of_different_form_are_computed_one_by_one() -> None:
    """Layers that are equal in the last step alone, and steps of another number of operations."""
    hardware, prefill = of.load("nvm_ideal"), of.shapes("gpt2", tokens=4, phase="prefill")
    steps = [of.shapes("gpt2", phase="decode", context=n) for n in (4, 5, 6)]
    short = [of.shapes("gpt2", phase="decode", context=n) for n in (1, 1, 6)]
    second = {op.name for op in steps[0].ops if op.layer == 1}
    changed = [
        of.Workload(
            step.title, "decode", 1, 1, step.context, True,
            tuple(other if one.name in second else one for one, other in zip(step.ops, less.ops, strict=True)),
        )
        for step, less in zip(steps, short, strict=True)
    ]  # fmt: skip
    served = of.serve((prefill, changed), hardware)
    for number, step in enumerate(changed):
        run = of.simulate(step, hardware)
        assert served.step_latency[number] == pytest.approx(run.latency, rel=1e-9)


def test_wear_of_a_request() -> None:
    """Cells of a layer's own are written once; those that layers share by every layer, sample and pass."""
    own = of.serve("gpt2", of.load("nvm_ideal"), prompt=30, generate=50, batch=3)
    assert {wear.max_writes for wear in own.wear} == {1}
    shared = of.serve("gpt2", of.load("xformer_tvlsi_2023"), prompt=30, generate=50, batch=3)
    assert [wear.max_writes for wear in shared.wear if wear.role == "attention.value"] == [12 * 3 * 50]
    assert shared.lifetime("2 Hz") == pytest.approx(shared.lifetime(4.0) * 2)  # type: ignore[operator]
    assert of.serve("gpt2", of.load("h100_sxm"), prompt=30, generate=50).lifetime() == float("inf")


def test_mean_writes_count_every_token_once() -> None:
    served = of.serve("gpt2", of.load("nvm_ideal"), prompt=30, generate=50, batch=3)
    wear = next(wear for wear in served.wear if wear.role == "attention.value")
    assert wear.mean_writes == pytest.approx(1)  # V of all 79 tokens, in as many rows of cells


def test_table_in_text_and_html() -> None:
    table = of.replace(of.load("nvm_ideal"), "title", "<b>x</b>")
    served = of.serve("gpt2", table, prompt=20, generate=5)
    assert "&lt;b&gt;x" in served._repr_html_()
    assert served._repr_html_().count("<tr>") == 6
    assert str(served).count("\n") == 6 + len(served.notes)
    assert any(note.endswith("times faster than reads and conversions allow") for note in served.notes)


def test_a_trace_has_all_passes_on_one_axis() -> None:
    served = of.serve("gpt2", of.load("nvm_ideal"), prompt=20, generate=4, dataflow=of.LayerOverlap(block=8))
    events = [event for event in served.chrome_trace()["traceEvents"] if event["ph"] == "X"]
    names = [event["args"]["pass"] for event in events]
    assert list(dict.fromkeys(names)) == ["prefill", "step 0", "step 1", "step 2"]
    ends = {name: max(e["args"]["arrives"] for e in events if e["args"]["pass"] == name) for name in names}
    starts = {name: min(e["ts"] for e in events if e["args"]["pass"] == name) for name in names}
    assert starts["step 0"] == pytest.approx(ends["prefill"])
    assert starts["step 1"] == pytest.approx(ends["step 0"])
    assert ends["step 2"] == pytest.approx(served.latency * 1e6)
    tracks = {(event["tid"], event["name"]) for event in events if event["name"] == "ffn1"}
    assert len(tracks) == 12
    assert (
        len({event["args"]["pass"] for event in served.chrome_trace(steps=1)["traceEvents"] if "pass" in event["args"]})
        == 2
    )


def test_a_thousand_steps() -> None:
    table = of.Transformer(
        title="small", kind="decoder", layers=3, width=64, heads=4, hidden=128, entries=100, tokens=8, head=100
    )
    served = of.serve(table, of.load("nvm_ideal"), prompt=10, generate=1001, batch=2)
    for step in (0, 117, 118, 999):
        run = of.simulate(of.shapes(table, phase="decode", context=10 + step, batch=2), of.load("nvm_ideal"))
        assert served.step_latency[step] == pytest.approx(run.latency, rel=1e-9)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": "bert-base"}, "model 'BERT-base': is an encoder, which generates no tokens; take `ohmformer cost` or "),
    ({"prompt": 0}, "serve: prompt = 0: must be 1 or more; raise it"),
    ({"prompt": -1}, "serve: prompt = -1: must be 1 or more; raise it"),
    ({"generate": 0}, "serve: generate = 0: must be 1 or more; raise it"),
    ({"generate": 2.0}, "serve: generate is a float, 2.0; give a whole number"),
    ({"batch": True}, "serve: batch is a bool, True; give a whole number"),
    ({"prompt": None}, "serve: prompt: is missing; give a number of tokens"),
    ({"generate": None}, "serve: generate: is missing; give a number of tokens"),
    ({"prompt": 1000, "generate": 26}, "prompt = 1000, generate = 26: takes 1025 positions, which end at 1024; lower"),
    ({"model": "llama-2-7b", "generate": 10**6}, "serve: generate = 1000000: must be at most 32,768; lower it"),
    ({"model": 3}, "serve: model is an int, 3; give the name of a table"),
    ({"hardware": "nvm_ideal"}, "serve: hardware is"),
    ({"dataflow": "layer_serial"}, "serve: dataflow is"),
    ({"dataflow": of.LayerOverlap(kv_cells="double")}, "dataflow.kv_cells = 'double'"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_is_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    given = {"model": "gpt2", "hardware": of.load("nvm_ideal"), "prompt": 20, "generate": 5, **change}
    with pytest.raises(of.BadInput) as caught:
        of.serve(given.pop("model"), given.pop("hardware"), **given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_workloads_are_refused() -> None:
    hardware = of.load("nvm_ideal")
    prefill, step = of.shapes("gpt2", tokens=4, phase="prefill"), of.shapes("gpt2", phase="decode", context=4)
    for model, message in (
        ((prefill, [prefill]), "serve: steps[0]: has phase 'prefill'; give workloads with phase = 'decode'"),
        ((step, [step]), "serve: prefill: has phase 'decode'; give a workload with phase = 'prefill'"),
        ((prefill, 3), "serve: steps is an int, 3; give a list"),
        ((prefill,), "give (prefill, list of decoding steps)"),
        ((prefill, [of.shapes("gpt2", phase="decode", context=4, batch=2)]), "has batch = 2, the prefill 1"),
        ((prefill, [of.shapes("gpt2", phase="decode", context=5), step]), "serve: steps[1]: has context = 4 after 5;"),
        (
            (prefill, [of.shapes("llama-3-8b", phase="decode", context=4)]),
            "serve: steps[0]: has weights 'layers.0.attention.query' of 4096 x 4096, which the prefill lacks; give",
        ),
        (
            (prefill, [of.shapes("llama-3-8b", phase="decode", context=4), step]),
            "serve: steps[0]: has 34 layers, the last",
        ),
    ):
        with pytest.raises(of.BadInput) as caught:
            of.serve(model, hardware)  # type: ignore[arg-type]
        assert message in str(caught.value)
    with pytest.raises(of.BadInput, match="serve: prompt = 5: the workloads say it; leave it out"):
        of.serve((prefill, [step]), hardware, prompt=5)
    with pytest.raises(of.BadInput, match="chrome_trace: steps = 9: must be a whole number from 0 to 1"):
        of.serve((prefill, [step]), hardware).chrome_trace(9)
    with pytest.raises(of.BadInput, match="timeline: step = 1: is not a step; there are 1, counted from 0"):
        of.serve((prefill, [step]), hardware).timeline(1)


def test_a_chip_that_is_too_small_for_the_longest_cache_is_refused() -> None:
    hardware = of.load("nvm_ideal")
    prompt = of.place(of.shapes("gpt2", tokens=100, phase="prefill"), hardware)
    small = of.replace(hardware, "chip.tiles", prompt.tiles)
    of.serve("gpt2", small, prompt=100, generate=2)
    with pytest.raises(of.BadInput, match=r"hardware\.chip\.tiles"):
        of.serve("gpt2", small, prompt=100, generate=900)


def test_a_trace_of_too_many_jobs_is_refused() -> None:
    served = of.serve("llama-2-7b", of.load("nvm_ideal"), prompt=10, generate=2000)
    with pytest.raises(of.BadInput, match=r"chrome_trace: steps = 1999: takes .* jobs; at most 200,000 .* trace fewer"):
        served.chrome_trace()


@pytest.mark.parametrize("batching", ["pipelined", "serial"])
def test_the_timeline_of_a_prefill_waits_for_the_memory(batching: str) -> None:
    """Lanes with all weights off the chip: stages of the prefill take turns with the memory, in the trace as well."""
    hardware = of.replace(of.load("puma_asplos_2019"), "chip.dram", {"bandwidth": 1e8, "energy": 112e-12})
    hardware = of.replace(hardware, "chip.buffer_capacity", 64)
    hardware = of.replace(hardware, "chip.buffer_bandwidth", 16e9)
    flow = of.SequenceBlocking.model_validate({"block": 7, "batching": batching})
    served = of.serve("gpt2", hardware, prompt=17, generate=2, batch=2, dataflow=flow)
    assert served.timeline().latency == pytest.approx(served.prefill_work, rel=1e-9)


def test_references_of_stored_queries_wear_most() -> None:
    """Cells for 8 queries, a prompt of 2 and three steps: five queries in five cells, and four writes of references."""
    hardware = of.load("isaac_isca_2016")
    for name, value in (("written", "left"), ("resident", 8)):
        hardware = of.replace(hardware, f"attention.key.{name}", value)
    assert hardware.attention.key.array.encoding == "offset"
    served = of.serve("gpt2", hardware, prompt=2, generate=4)
    writes = {entry.role: (most, mean) for entry, most, mean in served.writes}
    assert writes["attention.key"] == (4.0, pytest.approx((5 + 4) / 9))
    step = of.place(of.shapes("gpt2", phase="decode", context=9), hardware)
    assert all(entry.max_writes >= entry.mean_writes for entry in step.wear)


@pytest.mark.slow
def test_weights_of_the_encoder_stay_in_memory_while_the_decoder_decodes() -> None:
    """T5-base on lanes: 223 MB of weights and 25 MB of tables beside the 37 MB of the longest cache."""
    hardware = of.replace(of.load("puma_asplos_2019"), "engine", {"kind": "simd", "ops_per_mac": 2.0, "lanes": 1024})
    hardware = of.replace(hardware, "chip.buffer_capacity", None)
    memory = {"bandwidth": 192e9, "energy": 112e-12}
    tables, weights, cache = 32128 * 768, 222_855_168, 37_029_888
    enough = of.replace(hardware, "chip.dram", {**memory, "capacity": tables + weights + cache})
    assert of.serve("t5-base", enough, prompt=8, generate=2001).latency > 0
    small = of.replace(hardware, "chip.dram", {**memory, "capacity": tables + weights + cache - 1000})
    with pytest.raises(
        of.BadInput, match=r"hardware\.chip\.dram\.capacity = 284.*requests to 'T5-base'.*larger memory"
    ):
        of.serve("t5-base", small, prompt=8, generate=2001)


def test_weights_of_the_encoder_stay_in_the_memory_of_a_gpu() -> None:
    gpu = of.load("h100_sxm")
    for role in ("projection", "attention.key", "attention.value"):
        gpu = of.replace(gpu, f"{role}.memory", 540e6)  # weights and tables 495 MB, caches of 2,000 tokens 74 MB
    with pytest.raises(of.BadInput, match=r"hardware\.projection\.memory = 540 MB: requests to 'T5-base'"):
        of.serve("t5-base", gpu, prompt=8, generate=2001)
    assert of.serve("t5-base", gpu, prompt=8, generate=200).latency > 0


def test_a_prefill_has_the_memories_of_all_tiles_of_the_machine() -> None:
    """The longest cache takes more tiles than the prefill, whose weights and caches use their memories, too."""
    hardware = of.replace(of.load("nvm_ideal"), "projection", {"kind": "simd", "ops_per_mac": 2.0, "lanes": 64})
    hardware = of.replace(hardware, "chip.dram", {"bandwidth": 1e9, "energy": 112e-12})
    served = of.serve("gpt2", hardware, prompt=17, generate=300)
    fixed = of.replace(hardware, "chip.tiles", served.machine.used.total)
    assert served.prefill.homes.off_chip
    assert of.place(of.shapes("gpt2", tokens=17, phase="prefill"), hardware).tiles < served.machine.used.total
    run = of.simulate(of.shapes("gpt2", tokens=17, phase="prefill"), fixed)
    assert served.ttft == pytest.approx(run.latency, rel=1e-9)
    assert served.prefill_energy == pytest.approx(run.energy, rel=1e-9)
    assert served.area == of.place(of.shapes("gpt2", phase="decode", context=315), hardware).area


def test_wrong_arguments_of_results_are_refused() -> None:
    served = of.serve("gpt2", of.load("nvm_ideal"), prompt=20, generate=4)
    for rate in ("x", True, [1]):
        with pytest.raises(of.BadInput, match="rate"):
            served.first_worn(rate)  # type: ignore[arg-type]
    with pytest.raises(of.BadInput, match="leveling"):
        served.first_worn(leveling="yes")  # type: ignore[arg-type]
    with pytest.raises(of.BadInput, match="spare"):
        served.first_worn(spare="half")  # type: ignore[arg-type]
    for file in ("a\0b", ""):
        with pytest.raises(of.BadInput, match="cannot be written"):
            served.save_trace(file)
        with pytest.raises(of.BadInput, match="cannot be written"):
            of.simulate(served.passes.prefill, of.load("nvm_ideal")).save_trace(file)


def test_a_million_requests_that_run_one_by_one_have_a_steady_state() -> None:
    """Requests that run alone, one after another, take the sum of their times, wherever they are in their answers."""
    flow, hardware = of.LayerSerial(batching="serial"), of.load("nvm_ideal")
    served = of.serve("gpt2", hardware, prompt=20, generate=4, batch=1_000_000, dataflow=flow)
    assert served.steady is not None
    assert served.tpot is not None
    one = of.serve("gpt2", hardware, prompt=20, generate=4, dataflow=flow).steady
    assert one is not None
    assert served.steady.requests_per_s == pytest.approx(one.requests_per_s, rel=1e-9)


def test_too_many_requests_are_refused_before_they_are_priced() -> None:
    start = time.process_time()
    with pytest.raises(of.BadInput, match=r"serve: batch = 1000000: takes .* too many to compute; lower batch"):
        of.serve("gpt2", of.load("nvm_ideal"), prompt=20, generate=4, batch=1_000_000)
    assert time.process_time() - start < 1
