"""What chips send one another: bytes, time and energy by hand."""

from __future__ import annotations

import pytest

from ohmformer.cost.chips.exchange import bytes_sent, exchange_stage, on_chips
from ohmformer.cost.operands import LayerContext
from ohmformer.cost.stage import Stage
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import load
from ohmformer.workload.spec import Exchange
from tests.cost.chips.build import LINK, several

A100 = load(Accelerator, "a100_sxm_80gb")


def exchange(kind: str, chips: int = 4, values: int = 6400, number: int = 0, copies: int = 1) -> Exchange:
    return Exchange("x", "x", 0, kind, values, chips, number, copies)  # type: ignore[arg-type]


def context(base: str = "nvm_ideal", tokens: int = 10, batch: int = 2, **system: object) -> LayerContext:
    return LayerContext(several(base, **{"chips": 4, **system}), batch, tokens, 0)


def test_bytes_that_each_chip_sends() -> None:
    assert bytes_sent(exchange("send"), 1.0) == 6400
    assert bytes_sent(exchange("send", copies=3), 1.0) == 3 * 6400
    assert bytes_sent(exchange("all_reduce"), 2.0) == 2 * 3 / 4 * 2 * 6400
    assert bytes_sent(exchange("gather"), 1.0) == 3 / 4 * 6400
    assert bytes_sent(exchange("all_reduce", chips=1), 1.0) == 0


def test_time_of_a_link_is_occupied_and_latency_is_not() -> None:
    sent = exchange_stage(exchange("send"), context())
    assert sent.occupancy(20) == pytest.approx(1e-6, rel=1e-12)  # 6,400 bytes at 6.4 GB/s
    assert sent.time(20) == pytest.approx(1.05e-6, rel=1e-12)
    assert sent.energy == {"link": 6400 * 406e-12}


def test_an_all_reduce_takes_two_rounds_and_adds() -> None:
    stage = exchange_stage(exchange("all_reduce"), context())
    chip = load(Accelerator, "nvm_ideal").chip
    assert chip is not None
    assert stage.fixed == pytest.approx(6 * LINK["latency"], rel=1e-12)
    assert stage.occupancy(20) == pytest.approx(1.5e-6, rel=1e-12)
    assert stage.energy["vector"] == pytest.approx(0.75 * 6400 * chip.vector.add * chip.vector.energy_per_op, rel=1e-12)


def test_a_fast_link_waits_for_the_additions() -> None:
    stage = exchange_stage(exchange("all_reduce"), context(link={**LINK, "bandwidth": 1e15}))
    lanes = 8 * 4  # of a tile
    assert stage.occupancy(20) == pytest.approx(0.75 * 6400 / (lanes * 1e9), rel=1e-12)


def test_exchanges_of_a_layer_take_turns_with_the_links() -> None:
    units = [exchange_stage(exchange("send", number=number), context(links=2)).unit for number in range(3)]
    assert units == ["link 1", "link 2", "link 1"]
    assert exchange_stage(exchange("send", number=1), context()).unit == "link"


def test_on_a_gpu_an_exchange_is_a_kernel() -> None:
    at = LayerContext(several("a100_sxm_80gb", chips=4, partition="tensor"), 2, 10, 0)
    stage = exchange_stage(exchange("all_reduce"), at)
    assert stage.occupancy(20) == pytest.approx(1.5 * 2 * 6400 / 6.4e9 + 3.5e-6, rel=1e-12)
    assert set(stage.energy) == {"link"}


def test_energy_of_several_chips_adds_and_time_does_not() -> None:
    stage = Stage("key", "attention", "u", per_token=1.0, energy={"array": 2.0}, standing=3.0)
    four = on_chips(stage, 4)
    assert (four.per_token, four.energy, four.standing) == (1.0, {"array": 8.0}, 12.0)
    assert on_chips(stage, 1) is stage
