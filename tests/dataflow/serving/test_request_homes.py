"""What lives on and off the chip while a cache grows: each step is that of a simulation on the same machine."""

from __future__ import annotations

from typing import Any

import pytest

import ohmformer as of

SMALL = of.Transformer(
    title="small", kind="decoder", layers=3, width=64, heads=4, hidden=128, entries=100, tokens=8, head=100
)
LANES = {"kind": "simd", "ops_per_mac": 2.0, "lanes": "of_layer"}
ALL_LANES = {"engine": {**LANES, "lanes": 1024}}
KV_LANES = {"attention.key": LANES, "attention.value": LANES}
SPILLED = {
    f"attention.{role}.{name}": value
    for role in ("key", "value")
    for name, value in (("resident", 24), ("overflow", "spill"))
}


def machine(name: str, changes: dict[str, Any], capacity: int) -> of.Accelerator:
    """An accelerator with a memory off the chip and memories of tiles of `capacity` bytes."""
    hardware = of.load(name)
    chip = {"dram": {"bandwidth": 2e9, "energy": 112e-12}, "buffer_capacity": capacity, "buffer_bandwidth": 16e9}
    for path, value in {**changes, **{f"chip.{path}": value for path, value in chip.items()}}.items():
        hardware = of.replace(hardware, path, value)
    return hardware


CASES: list[tuple[str, dict[str, Any], int, of.Dataflow, int]] = [
    ("xformer_tvlsi_2023", KV_LANES, 256, of.LayerSerial(), 2),
    ("xformer_tvlsi_2023", KV_LANES, 512, of.LayerOverlap(), 3),
    ("puma_asplos_2019", ALL_LANES, 4096, of.SequenceBlocking(block=7, batching="serial"), 2),
    ("puma_asplos_2019", ALL_LANES, 1024, of.LayerOverlap(), 1),
    ("nvm_ideal", SPILLED, 16, of.LayerSerial(), 2),
    ("sram_iso_area", {}, 1024, of.LayerOverlap(block=5), 2),
    ("nvm_ideal", {**SPILLED, "attention.refresh": "3 ms", "chip.idle_tiles": "gated"}, 64, of.LayerSerial(), 2),
]


@pytest.mark.parametrize(("name", "changes", "capacity", "flow", "batch"), CASES, ids=str)
@pytest.mark.slow
def test_steps_equal_simulations_on_the_same_machine(
    name: str, changes: dict[str, Any], capacity: int, flow: of.Dataflow, batch: int
) -> None:
    hardware = machine(name, changes, capacity)
    served = of.serve(SMALL, hardware, prompt=6, generate=45, batch=batch, dataflow=flow)
    assert served.decoding is not None
    assert served.decoding.prices.moving
    fixed = of.replace(hardware, "chip.tiles", served.machine.used.total)
    prefill = of.simulate(of.shapes(SMALL, tokens=6, batch=batch, phase="prefill"), fixed, flow)
    assert served.prefill_work == pytest.approx(prefill.timeline.work, rel=1e-9)
    off_chip = []
    for step in range(0, 44, 3):
        run = of.simulate(of.shapes(SMALL, phase="decode", context=6 + step, batch=batch), fixed, flow)
        dynamic = sum(run.placement.energy.values()) + run.timeline.gated
        assert served.decoding.latencies[step] == pytest.approx(run.timeline.work, rel=1e-9)
        assert served.decoding.energies[step] + served.decoding.gated[step] == pytest.approx(dynamic, rel=1e-9)
        timeline = served.timeline(step)
        assert timeline.work == pytest.approx(run.timeline.work, rel=1e-9)
        assert timeline.peak_buffer() == pytest.approx(run.timeline.peak_buffer())
        off_chip.append(sum(run.placement.homes.off_chip.values()))
        if run.placement.refresh is not None:
            assert served.decoding.refreshes[step].joules == pytest.approx(run.placement.refresh.joules, rel=1e-9)
    assert off_chip[0] < off_chip[-1]


def test_a_cache_that_overflows_is_priced_as_on_the_chip_until_then() -> None:
    """By hand: a token takes 3 layers x 2 x 64 values of a byte; the first tokens have room in memories of tiles."""
    hardware = machine("xformer_tvlsi_2023", KV_LANES, 2048)
    served = of.serve(SMALL, hardware, prompt=4, generate=40)
    assert served.decoding is not None
    per_token, room = 3 * 2 * 64 * hardware.value_bytes, 2048 * served.machine.used.total
    for step in range(39):
        kept, homes = per_token * (5 + step), served.decoding.prices.homes(step)
        assert homes.on_chip["keys and values"] == pytest.approx(min(kept, room))
        assert homes.off_chip.get("keys and values", 0.0) == pytest.approx(max(0.0, kept - room))
    assert served.decoding.one_recursion
    fits = int(room // per_token) - 5  # the last step whose whole cache is on the chip
    assert 0 < fits < 37
    dram = [served.timeline(step).energy_by("component")["dram"] for step in range(39)]
    tables = dram[0]  # embedding tables are off the chip from the start
    assert dram[: fits + 1] == pytest.approx([tables] * (fits + 1))
    for step in range(fits + 1, 39):
        kept = per_token * (5 + step)
        moved = (kept - room) / kept * (kept + per_token)  # all tokens are read, and the new one is written
        assert dram[step] - tables == pytest.approx(moved * 112e-12, rel=1e-9)


def test_mixed_contexts_fill_the_memories_with_the_mean_number_of_bytes() -> None:
    hardware = machine("xformer_tvlsi_2023", KV_LANES, 512)
    served = of.serve(SMALL, hardware, prompt=4, generate=40, batch=3)
    assert served.decoding is not None
    kept = 3 * 3 * 2 * 64 * hardware.value_bytes * (4 + 20)  # contexts from 5 to 43 tokens, the new one included
    assert served.decoding.mixed.homes is not None
    (homes,) = served.decoding.mixed.homes
    room = 512 * served.machine.used.total
    assert homes.on_chip["keys and values"] == pytest.approx(room)
    assert homes.off_chip["keys and values"] == pytest.approx(kept - room)
    middle = served.decoding.mixed.energies.mean()
    assert middle == pytest.approx(served.decoding.energies.mean(), rel=0.05)
    assert middle != served.decoding.energies.mean()


def test_a_prefill_beside_other_requests_has_less_room() -> None:
    """Alone, the prompt fits on the chip; in the steady state the caches of seven others are there, too."""
    hardware = machine("xformer_tvlsi_2023", KV_LANES, 2048)
    served = of.serve(SMALL, hardware, prompt=8, generate=2, batch=8)
    assert served.alone is not None
    assert "keys and values" not in served.alone.homes.off_chip
    assert served.steady is not None
    large = of.serve(SMALL, machine("xformer_tvlsi_2023", KV_LANES, 2**20), prompt=8, generate=2, batch=8).steady
    assert large is not None
    alone = sum(served.alone.energy.values())
    assert served.steady.energy_per_token > large.energy_per_token > alone / 100


@pytest.mark.parametrize("batch", [1, 3])
def test_more_room_never_costs_more(batch: int) -> None:
    served = [
        of.serve(SMALL, machine("xformer_tvlsi_2023", KV_LANES, 2**size), prompt=4, generate=30, batch=batch)
        for size in range(6, 13, 2)
    ]
    for name in ("latency", "energy"):
        values = [getattr(each, name) for each in served]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1]
