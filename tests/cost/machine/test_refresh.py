"""The price of writing all keys and values again, by hand."""

from __future__ import annotations

import pytest

import ohmformer as of
from ohmformer.cost.machine.refresh import Refresh, refreshes

INTERVAL = "10 ms"


def refreshed(name: str = "nvm_ideal", interval: str = INTERVAL) -> of.Accelerator:
    return of.replace(of.load(name), "attention.refresh", interval)


def refresh_of(model: str, hardware: of.Accelerator, **sizes: object) -> Refresh:
    found = of.place(of.shapes(model, **sizes), hardware).refresh  # type: ignore[arg-type]
    assert found is not None
    return found


def test_a_refresh_writes_every_cell_of_keys_and_values_once() -> None:
    """BERT-base, 100 tokens on crossbars of 128 rows: 100 rows of V take longer than 64 of K."""
    hardware = refreshed()
    placement = of.place(of.shapes("bert-base", tokens=100), hardware)
    cell = hardware.attention.key.array.cell
    found = refresh_of("bert-base", hardware, tokens=100)
    cells = placement.counts.cell_writes
    assert found.seconds == pytest.approx(100 * cell.write_time, rel=1e-12)
    assert found.cell_writes == cells
    assert found.energy["write"] == pytest.approx(cells * cell.write_energy, rel=1e-12)
    chip, size = hardware.chip, 12 * 2 * 100 * 768
    assert chip is not None
    assert found.energy["buffer"] == pytest.approx(size * chip.buffer_energy, rel=1e-12)
    assert found.energy["register"] == pytest.approx(size * chip.register_energy, rel=1e-12)


def test_short_caches_take_the_rows_of_a_head() -> None:
    hardware = refreshed()
    write_time = hardware.attention.key.array.cell.write_time
    assert refresh_of("bert-base", hardware, tokens=10).seconds == pytest.approx(64 * write_time, rel=1e-12)
    assert refresh_of("bert-base", hardware, tokens=500).seconds == pytest.approx(128 * write_time, rel=1e-12)


def test_samples_with_caches_of_their_own_take_turns() -> None:
    hardware = refreshed()
    one, three = (refresh_of("gpt2", hardware, phase="decode", context=99, batch=n) for n in (1, 3))
    assert three.seconds == pytest.approx(3 * one.seconds, rel=1e-12)
    assert three.joules == pytest.approx(3 * one.joules, rel=1e-12)
    assert refresh_of("bert-base", hardware, tokens=99, batch=3).seconds == pytest.approx(
        one.seconds / 100 * 99, rel=1e-9
    )


def test_shared_arrays_hold_one_layer() -> None:
    own = refresh_of("bert-base", refreshed(), tokens=100)
    shared = refresh_of("bert-base", of.replace(refreshed(), "attention.arrays", "shared"), tokens=100)
    assert own.cell_writes == 12 * shared.cell_writes
    assert own.joules == pytest.approx(12 * shared.joules, rel=1e-12)
    assert own.seconds == shared.seconds


def test_refreshes_of_a_time_of_computing() -> None:
    assert [refreshes(work, 2.0) for work in (0.0, 1.0, 2.0, 2.1, 4.0, 4.1, 9.0)] == [0, 0, 0, 1, 1, 2, 4]
    assert refreshes(3 * 0.1, 0.1) == 2


def test_cells_that_keep_their_values_are_not_refreshed() -> None:
    assert of.place(of.shapes("bert-base", tokens=10), of.load("nvm_ideal")).refresh is None


def test_what_cannot_be_met_is_refused() -> None:
    with pytest.raises(of.BadInput) as caught:
        refresh_of("bert-base", refreshed(interval="8 us"), tokens=100)
    assert str(caught.value).startswith(
        "hardware.attention.refresh = 8 us: writing all keys and values of BERT-base again takes 8.57 us; raise it"
    )
    for name in ("h100_sxm", "puma_asplos_2019"):
        with pytest.raises(of.BadInput, match=r"hardware\.attention\.refresh: K and V are in no cells"):
            refresh_of("bert-base", refreshed(name), tokens=100)
    for value, message in (("0 s", "must be > 0"), ("-1 ms", "must be > 0"), ("5", "refresh"), ("1 V", "refresh")):
        with pytest.raises(of.BadInput, match=message):
            refreshed(interval=value)


def test_a_refresh_reads_its_values_from_the_memory_that_keeps_them() -> None:
    """Decoding with shared arrays: the caches are off the chip, and a slow memory decides how long a refresh takes."""
    hardware = of.replace(refreshed(interval="1 s"), "attention.arrays", "shared")
    hardware = of.replace(hardware, "chip.dram", {"bandwidth": 1e8, "energy": 112e-12})
    hardware = of.replace(hardware, "chip.buffer_capacity", None)
    found = refresh_of("gpt2", hardware, phase="decode", context=99)
    size = 2 * 100 * 768  # K and V of the one layer that the cells hold
    assert found.energy["dram"] == pytest.approx(size * 112e-12, rel=1e-12)
    assert found.seconds == pytest.approx(size / 1e8, rel=1e-12)


@pytest.mark.parametrize("flow", [of.LayerSerial(), of.LayerOverlap(block=8)])
def test_gated_tiles_are_on_during_a_refresh(flow: of.Dataflow) -> None:
    hardware = of.replace(refreshed(interval="20 us"), "chip.idle_tiles", "gated")
    work, chip = of.shapes("bert-base", tokens=100), hardware.chip
    run, without = (
        of.simulate(work, each, flow) for each in (hardware, of.replace(hardware, "attention.refresh", None))
    )
    again = run.placement.refresh
    assert again is not None
    assert chip is not None
    count = run.timeline.refreshes
    assert count > 0
    arrays = sum(run.placement.arrays[role] for role in ("attention.key", "attention.value"))
    more = count * again.seconds * chip.tile_power * arrays / (chip.arrays_per_core * chip.cores_per_tile)
    for kind in ("component", "operation", "engine"):
        static = run.energy_by(kind)["static"] - without.energy_by(kind)["static"]
        assert static == pytest.approx(more, rel=1e-6)
    assert of.explore([(work, hardware, flow)]).energy[0] == pytest.approx(run.energy, rel=1e-9)


def test_cells_without_tokens_are_not_refreshed() -> None:
    """Cells for 512 tokens, of which 65 are filled: as with cells for 65 tokens alone."""
    for name, model, sizes in (
        ("xformer_tvlsi_2023", "bert-base", {"tokens": 65}),
        ("nvm_ideal", "gpt2", {"phase": "decode", "context": 64, "batch": 2}),
    ):
        found = []
        for resident in (65, 512, 2_048):
            hardware = refreshed(name)
            for role in ("key", "value"):
                hardware = of.replace(hardware, f"attention.{role}.resident", resident)
            found.append(refresh_of(model, hardware, **sizes))
        assert found[0].joules > 0
        for other in found[1:]:
            assert (other.seconds, other.cell_writes) == (found[0].seconds, found[0].cell_writes)
            assert other.joules == pytest.approx(found[0].joules, rel=1e-12)
