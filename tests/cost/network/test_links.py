"""Loads of network and tile memories: by hand, in all engines of time, and refused, slowed or noted."""

from __future__ import annotations

from typing import Any

import pytest

from ohmformer.cost.placement import Placement, place
from ohmformer.dataflow.closed_form import latency
from ohmformer.dataflow.explore import explore
from ohmformer.dataflow.serving.serve import serve
from ohmformer.dataflow.simulate import simulate
from ohmformer.dataflow.spec import Dataflow, LayerOverlap, LayerSerial, SequenceBlocking
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import load, replace
from ohmformer.study.cost import make_costs, study_costs
from ohmformer.study.serving import study_served
from ohmformer.workload.shapes import Transformer, shapes

XFORMER = load(Accelerator, "xformer_tvlsi_2023")
IDEAL = load(Accelerator, "nvm_ideal")
WORK = shapes("bert-base", tokens=512)


def chip(hardware: Accelerator, **fields: Any) -> Accelerator:
    for name, value in fields.items():
        hardware = replace(hardware, f"chip.{name}", value)
    return hardware


def loads(placed: Placement) -> dict[str, tuple[float, float]]:
    stages = [part for stage in placed.layers[1].stages for part in stage.parts]
    return {stage.name: (stage.network_load, stage.memory_load) for stage in stages}


def times(placed: Placement) -> dict[str, float]:
    return {part.name: part.per_token for stage in placed.layers[1].stages for part in stage.parts}


def test_a_tile_of_xformer_sends_a_packet_of_32_bytes_in_12_5_cycles() -> None:
    """Q, K and V: 2,304 results of a byte from 9 tiles in 100 cycles, 0.08 packets a cycle; 0.025 are allowed.

    The second layer of the feed-forward part also sends one sum of two bytes of every result to another tile. The
    memories of the 9 tiles move 2,304 inputs, as many results, and 3 sums of every result in and out: 358.4 B per tile
    in 10 ns, of 16 GB/s.
    """
    found = loads(place(WORK, XFORMER))
    assert found["qkv"][0] == pytest.approx(2304 / 9 / 100 / 32 / 0.025, rel=1e-12)
    assert found["qkv"][0] == pytest.approx(3.2, rel=1e-12)
    assert found["ffn1"][0] == pytest.approx(3.2, rel=1e-12)
    assert found["ffn2"][0] == pytest.approx((768 + 2 * 768) / 12 / 100 / 32 / 0.025, rel=1e-12)
    assert found["qkv"][1] == pytest.approx((2 * 2304 + 2 * 2 * 3 * 2304) / 9 / 100 / 16, rel=1e-12)
    assert found["ffn2"][1] == pytest.approx((3072 + 768 + 2 * 2 * 15 * 768) / 12 / 100 / 16, rel=1e-12)
    assert found["key"][0] == 0


def test_scores_pass_the_network_if_k_and_v_lie_in_different_tiles() -> None:
    """12 x 512 scores of a byte from the 384 arrays of Q, which are 8 tiles."""
    hardware = chip(XFORMER, attention_tiles="by_operand")
    found, together = place(WORK, hardware), place(WORK, XFORMER)
    assert loads(found)["key"][0] == pytest.approx(12 * 512 / 8 / 100 / 32 / 0.025, rel=1e-12)
    scores = 12 * 12 * 512 * 512 * 4.03e-12
    assert found.energy["network"] - together.energy["network"] == pytest.approx(scores, rel=1e-9)


def test_slow_takes_the_time_of_the_bytes_and_not_the_latency() -> None:
    noted, slow = place(WORK, XFORMER), place(WORK, chip(XFORMER, overload="slow"))
    for name, seconds in times(slow).items():
        assert seconds == pytest.approx(times(noted)[name] * max(1, *loads(noted)[name]), rel=1e-12)
    assert times(slow)["qkv"] == pytest.approx(320e-9, rel=1e-12)
    assert [stage.fixed for stage in slow.stages()] == [stage.fixed for stage in noted.stages()]
    assert slow.energy == noted.energy
    assert loads(slow) == loads(noted)


def test_a_network_within_its_limits_changes_nothing() -> None:
    wide = chip(XFORMER, overload="slow", network_max_load=1.0, buffer_bandwidth=1e12)
    plain = chip(XFORMER, network_packet=None, network_max_load=None, buffer_bandwidth=None, overload="slow")
    assert simulate(WORK, wide).latency == simulate(WORK, plain).latency == simulate(WORK, XFORMER).latency
    assert place(WORK, plain).loads == {}


@pytest.mark.parametrize("model", ["bert-base", "gpt2", "t5-base"])
def test_event_engine_closed_form_and_explore_agree(model: str) -> None:
    work = shapes(model, tokens=100, batch=2)
    flows: tuple[Dataflow, ...] = (
        LayerSerial(),
        SequenceBlocking(block=32),
        SequenceBlocking(block=32, batching="serial"),
        LayerOverlap(block=32),
    )
    for hardware in (chip(XFORMER, overload="slow"), chip(IDEAL, overload="slow", attention_tiles="by_operand")):
        for flow in flows:
            run = simulate(work, hardware, flow)
            assert latency(run.placement, flow) == pytest.approx(run.latency, rel=1e-9)
            found = explore([(work, hardware, flow)])
            assert found.latency[0] == pytest.approx(run.latency, rel=1e-9)
            assert found.energy[0] == pytest.approx(run.energy, rel=1e-9)


def test_served_steps_are_those_of_single_passes() -> None:
    hardware = chip(IDEAL, overload="slow", attention_tiles="by_operand")
    served = serve("gpt2", hardware, prompt=150, generate=4, batch=2)
    for step in range(3):
        work = shapes("gpt2", phase="decode", context=150 + step, batch=2)
        assert served.step_latency[step] == pytest.approx(simulate(work, hardware).latency, rel=1e-9)
    assert served.loads["network"] > 1
    assert any(note.endswith("; stages wait for that") for note in served.notes)


def test_a_causal_query_sends_the_scores_of_the_keys_that_it_sees() -> None:
    """Two blocks: the second one sends three times as many scores as the first, and all together those of one block."""
    hardware = chip(IDEAL, overload="slow", attention_tiles="by_operand", network_max_load=1e-4, buffer_bandwidth=None)
    layer = place(shapes("gpt2", tokens=256), hardware).layers[1]
    key = next(stage for stage in layer.stages if stage.name == "key")
    first, second = key.occupancy(128), key.occupancy(128, 128)
    tiles, rate = 12 * 2 * 4 / 48, 32 * 1e-4 * 1e9
    assert first == pytest.approx(12 * 128 * 129 / 2 / tiles / rate, rel=1e-9)
    assert second == pytest.approx(12 * (256 * 257 - 128 * 129) / 2 / tiles / rate, rel=1e-9)
    assert key.occupancy(256) == pytest.approx(first + second, rel=1e-9)


def test_never_faster_with_less_bandwidth_nor_with_more_tokens() -> None:
    found = [
        simulate(WORK, chip(XFORMER, overload="slow", network_max_load=load, buffer_bandwidth=rate)).latency
        for load, rate in ((1.0, 1e12), (0.1, 1e12), (0.1, 32e9), (0.025, 16e9), (0.01, 16e9))
    ]
    assert found == sorted(found)
    slow = chip(XFORMER, overload="slow")
    longer = [simulate(shapes("bert-base", tokens=tokens), slow).latency for tokens in (1, 16, 128, 500, 512)]
    assert longer == sorted(longer)


def test_lanes_and_their_memories_are_limited_as_well() -> None:
    """In lanes of one tile: 12 x 512 scores and as many inputs pass its memory and port."""
    puma = chip(load(Accelerator, "puma_asplos_2019"), overload="slow", network_max_load=1e-5)
    stage = place(WORK, puma).layers[1].stages[1]
    assert stage.name == "key+value"
    key = stage.parts[0]
    assert key.per_token == pytest.approx(12 * 512 / 36 / (32 * 1e-5 * 1e9), rel=1e-9)


def test_what_a_chip_refuses() -> None:
    with pytest.raises(BadInput) as refused:
        place(WORK, chip(XFORMER, overload="refuse"))
    assert str(refused.value) == (
        "hardware.chip.network_max_load = 0.025: a tile sends 0.08 packets per cycle in stage qkv, 3.2 times as many; "
        "take overload = 'slow' or a wider network"
    )
    with pytest.raises(BadInput, match=r"hardware.chip.buffer_bandwidth = 16 GB/s: stage qkv moves 35.84 GB/s through"):
        place(WORK, chip(XFORMER, overload="refuse", network_max_load=0.1))
    place(WORK, chip(XFORMER, overload="refuse", network_max_load=0.1, buffer_bandwidth=50e9))
    for verb in (explore, lambda points: serve("gpt2", points[0][1], prompt=16, generate=2)):
        with pytest.raises(BadInput, match="network_max_load"):
            verb([(WORK, chip(IDEAL, overload="refuse"), LayerSerial())])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"network_packet": None}, "network_packet: is missing beside network_max_load"),
        ({"network_max_load": None}, "network_max_load: is missing beside network_packet"),
        ({"network_max_load": 0.0}, "network_max_load = 0.0"),
        ({"network_packet": 0.0}, "network_packet = 0.0"),
        ({"overload": "ignore"}, "overload"),
        ({"partial_sum_bits": 0}, "partial_sum_bits = 0"),
        ({"attention_tiles": "nearby"}, "attention_tiles"),
        (
            {"overload": "refuse", "network_packet": None, "network_max_load": None, "buffer_bandwidth": None},
            "overload = 'refuse': there is no limit to exceed",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as refused:
        place(WORK, chip(XFORMER, **fields))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def document(**fields: Any) -> dict[str, Any]:
    hardware = {"base": "xformer_tvlsi_2023", **{f"chip.{name}": value for name, value in fields.items()}}
    return {"name": "x", "model": {"source": "shapes:bert-base", "seq_len": 512}, "hardware": hardware}


ONE_ACCESS = "cost.timing = 'one_access' of projection arrays: up to 8 times faster than reads and conversions allow"
"""The note on the arrays of X-Former, which stands behind those on its network."""
NOTED = (
    "the network would carry 3.2 times hardware.chip.network_max_load = 0.025 packets per cycle; times leave that out",
    "the memories of tiles would carry 2.6 times hardware.chip.buffer_bandwidth = 16 GB/s; times leave that out",
    ONE_ACCESS,
)


def test_every_result_says_what_its_network_carries() -> None:
    costs = study_costs(make_costs(document()))
    assert costs.notes == NOTED
    assert costs.points[0].cost.load == pytest.approx({"network": 3.2, "tile memory": 2.6})
    assert tuple(simulate(WORK, XFORMER).notes) == NOTED
    assert NOTED[0] in str(simulate(WORK, XFORMER))
    slow = study_costs(make_costs(document(overload="slow")))
    assert [note.rpartition("; ")[2] for note in slow.notes[:2]] == ["stages wait for that"] * 2
    wide = study_costs(make_costs(document(network_max_load=1, buffer_bandwidth="1 TB/s")))
    assert wide.notes == (ONE_ACCESS,)


def test_unknown_bandwidth_is_said() -> None:
    hardware = chip(XFORMER, network_packet=None, network_max_load=None, buffer_bandwidth=None)
    assert simulate(WORK, hardware).notes == [
        "hardware.chip.network_max_load and buffer_bandwidth are not given: the bandwidth of the network and the "
        "memories of tiles is taken to suffice",
        ONE_ACCESS,
    ]
    isaac = simulate(shapes("bert-base", tokens=64), load(Accelerator, "isaac_isca_2016"))
    assert isaac.notes == [
        "hardware.chip.network_max_load is not given: the bandwidth of the network is taken to suffice"
    ]
    assert simulate(WORK, load(Accelerator, "gtx_1060")).notes == []


def test_served_requests_carry_the_notes() -> None:
    requests = {**document(), "model": {"source": "shapes:gpt2", "seq_len": 32, "generate": 2}}
    requests["hardware"] = {"base": "nvm_ideal"}
    served = study_served(make_costs(requests))
    assert served.points[0].cost.load["network"] > 1
    assert any(note.startswith("the network would carry") for note in served.notes)


def test_published_designs_stay_within_their_limits() -> None:
    """PUMA at 16 bits and ISAAC, as their papers describe them, carry what they compute."""
    for name, most in (("puma_asplos_2019_16bit", 0.62), ("isaac_isca_2016", 0.41)):
        found = place(WORK, load(Accelerator, name)).loads
        assert 0 < max(found.values()) < most


def test_what_is_not_refused_is_not_slowed() -> None:
    """Early tokens of causal attention see few keys, so their time is short beside their bytes."""
    sizes: dict[str, Any] = {"layers": 1, "width": 8, "heads": 1, "hidden": 64, "entries": 100, "head": 10}
    work = shapes(Transformer(title="narrow", kind="decoder", tokens=65, **sizes))
    engine = {"kind": "simd", "ops_per_mac": 2, "lanes": 64}
    hardware = replace(load(Accelerator, "isaac_isca_2016"), "attention.value", engine)
    refused = []
    for rate in (1e8, 1e9, 3e9, 5e9, 7e9, 9e9, 1.1e10, 2e10, 1e11, 1e12):
        ways = {way: replace(replace(hardware, "chip.buffer_bandwidth", rate), "chip.overload", way) for way in WAYS}
        slow, note = (simulate(work, ways[way]).latency for way in ("slow", "note"))
        try:
            assert slow == note == simulate(work, ways["refuse"]).latency
        except BadInput as fault:
            refused.append(str(fault))
    assert 0 < len(refused) < 10
    assert all("hardware.chip.buffer_bandwidth = " in text for text in refused)
    assert any("for some tokens" in text for text in refused)


WAYS = ("slow", "refuse", "note")


def test_scores_of_lanes_that_compute_their_softmax_stay_in_the_tiles_of_a_head() -> None:
    """Units of attention beside four vector units: by head, 12 scores of 128 keys a token pass no network.

    A tile sends 0.8 GB/s: the 768 results of P V take 960 ns. Q K^T takes 2 x 768 x 128 operations in 512 lanes of
    1 GHz and its softmax 4 x 12 x 128, together 396 ns; by operand, its scores take 1,920 ns.
    """
    units = {"kind": "simd", "ops_per_mac": 2, "lanes": 512, "units": 8}
    hardware = load(Accelerator, "puma_asplos_2019")
    units_of_all = {"chip.vector.units": 4, "chip.vector.lanes_per_core": 256}
    for path, value in {"attention.key": units, "attention.value": units, **units_of_all}.items():
        hardware = replace(hardware, path, value)
    hardware = replace(hardware, "chip.overload", "slow")
    found = {}
    for tiles in ("by_operand", "by_head"):
        placed = place(shapes("bert-base", tokens=128), replace(hardware, "chip.attention_tiles", tiles))
        found[tiles] = next(stage for stage in placed.layers[1].stages if stage.name == "key+value")
    assert found["by_operand"].per_token == pytest.approx(1_920e-9 + 960e-9, rel=1e-12)
    assert found["by_head"].per_token == pytest.approx(396e-9 + 960e-9, rel=1e-12)
    saved = found["by_operand"].energy["network"] - found["by_head"].energy["network"]
    assert saved == pytest.approx(128 * 128 * 12 * 4.03e-12, rel=1e-12)
