"""Which chips hold which layers, and refusals of systems that do not fit."""

from __future__ import annotations

import pytest

from ohmformer.cost.placement import Placement, place
from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator
from ohmformer.schema import load, replace
from ohmformer.workload.shapes import shapes
from ohmformer.workload.spec import StaticMatMul, Workload
from tests.cost.chips.build import LINK, several

GPT2 = shapes("gpt2", phase="decode", context=100)
BERT = shapes("bert-base", tokens=64)


def placed(work: Workload, *args: object, **system: object) -> Placement:
    return place(work, several(*args, **system))  # type: ignore[arg-type]


def spans(found: Placement) -> tuple[tuple[int, ...], tuple[int, ...]]:
    assert found.layout is not None
    return found.layout.ends, found.layout.sharing


def test_a_chip_takes_as_many_whole_layers_as_it_has_tiles_for() -> None:
    """A layer of GPT-2 takes 36 tiles of weights, and K and V a few more."""
    assert spans(placed(GPT2, "puma_asplos_2019", 3 * 36 + 1)) == ((4, 7, 10, 13, 14), (1, 1, 1, 1, 2))
    assert spans(placed(GPT2, "puma_asplos_2019", 700)) == ((14,), (1,))


def test_a_part_outside_of_layers_takes_as_many_chips_as_its_columns_need() -> None:
    """The head of GPT-2 takes 197 tiles: two chips of 138, six of 36."""
    assert spans(placed(GPT2, "puma_asplos_2019", 36))[1] == (*(1,) * 12, 6)


def test_a_given_number_of_chips_gets_even_shares_of_the_weights() -> None:
    assert spans(placed(BERT, "nvm_ideal", chips=3)) == ((5, 9, 13), (1, 1, 1))
    assert spans(placed(BERT, "nvm_ideal", chips=4, partition="tensor", degree=2)) == ((7, 13), (2, 2))
    assert len(spans(placed(BERT, "nvm_ideal", chips=12))[0]) == 12


def test_a_given_number_of_chips_is_used_up() -> None:
    for chips in (6, 8, 10, 14):
        assert sum(spans(placed(GPT2, "puma_asplos_2019", 138, chips=chips))[1]) == chips


def test_area_and_power_count_all_tiles_of_all_chips() -> None:
    found = placed(GPT2, "puma_asplos_2019", 138)
    chip = load(Accelerator, "puma_asplos_2019").chip
    assert chip is not None
    assert found.machine is not None
    assert found.tiles == 6 * 138
    assert found.machine.chips == 6
    assert found.power == pytest.approx(6 * 138 * chip.tile_power, rel=1e-12)
    assert found.area == pytest.approx(6 * found.machine.largest_chip, rel=1e-9)


def test_a_node_is_a_chip_where_a_chip_has_no_number_of_tiles() -> None:
    nodes = place(GPT2, load(Accelerator, "puma_asplos_2019_nodes"))
    assert spans(nodes) == ((4, 7, 10, 13, 14), (1, 1, 1, 1, 2))


def test_each_chip_has_memories_of_its_own() -> None:
    """Keys and values of three layers are in the memories of 109 tiles, those of others elsewhere."""
    one = place(GPT2, load(Accelerator, "puma_asplos_2019"))
    found = placed(GPT2, "puma_asplos_2019", 109)
    assert found.homes.on_chip == pytest.approx(one.homes.on_chip)
    held = [home.on_chip.get("keys and values", 0.0) for home in found.homes_of]
    assert held == pytest.approx([held[0]] * 4 + [0.0])


def test_as_few_chips_share_each_layer_as_hold_the_model() -> None:
    work = shapes("llama-2-7b", phase="decode", context=100)
    assert spans(placed(work, "gtx_1060", partition="tensor")) == ((34,), (8,))  # 4 would need 6.8 GB each
    assert spans(placed(BERT, "puma_asplos_2019", 138, partition="tensor")) == ((13,), (4,))


def test_gpus_of_a_pipeline_hold_a_model_that_is_too_large_for_one() -> None:
    work = shapes("llama-2-7b", phase="decode", context=100)
    with pytest.raises(BadInput, match=r"needs 27.06 GB"):
        place(work, load(Accelerator, "gtx_1060"))
    assert spans(placed(work, "gtx_1060")) == ((8, 15, 22, 29, 34), (1,) * 5)


def test_weights_that_modules_share_are_stored_on_each_chip() -> None:
    ops = tuple(
        StaticMatMul(f"layers.{n}.ffn", "ffn1", n, 4, 128, 128, shared_with="layers.0.ffn" if n else "")
        for n in range(4)
    )
    work = Workload("tied", "encode", 1, 4, 0, False, ops)
    arrays = [place(work, load(Accelerator, "nvm_ideal")).arrays["projection"]]
    arrays += [placed(work, "nvm_ideal", chips=chips).arrays["projection"] for chips in (2, 4)]
    assert arrays == [arrays[0], 2 * arrays[0], 4 * arrays[0]]


T5, LLAMA = shapes("t5-base", tokens=8), shapes("llama-2-7b", tokens=8)
PUMA = "puma_asplos_2019"
REFUSALS = [
    (
        GPT2,
        (PUMA, 20),
        {},
        r"hardware.chip.tiles = 20: a chip needs 36 tiles .*; raise it, or take .* degree = 2 \(layer 0: it has",
    ),
    (GPT2, (PUMA, 138), {"chips": 5}, r"hardware.system.chips = 5: 'GPT-2 \(124 M\)' with batch = 1 needs 6"),
    (GPT2, (PUMA,), {"chips": 20}, r"hardware.system.chips = 20: .* can use 13"),
    (GPT2, (PUMA,), {}, r"hardware.chip.tiles: is missing, so it is unknown when a chip"),
    (GPT2, (PUMA,), {"partition": "tensor", "degree": 5}, r"hardware.system.degree = 5: .* cannot divide evenly"),
    (T5, ("nvm_ideal",), {"chips": 2}, r"hardware.system: .* is an encoder-decoder"),
    (LLAMA, (PUMA, 138), {"partition": "tensor"}, r"hardware.system.degree: is missing, and no 256 chips"),
    (LLAMA, ("gtx_1060",), {"chips": 3}, r"hardware.system.chips = 3: .* needs 5"),
]


@pytest.mark.parametrize(("work", "machine", "system", "message"), REFUSALS)
def test_systems_that_do_not_fit_are_refused_in_one_line(
    work: Workload, machine: tuple[object, ...], system: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInput, match=message) as error:
        placed(work, *machine, **system)
    assert "\n" not in str(error.value)


def test_a_system_without_chip_and_gpu_is_refused() -> None:
    hardware = load(Accelerator, "nvm_ideal").model_copy(update={"chip": None})
    system = several("nvm_ideal", chips=2).system
    with pytest.raises(BadInput, match=r"hardware.system: this accelerator describes neither a chip nor a GPU"):
        place(BERT, hardware.model_copy(update={"system": system}))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("system.link", None, "system.link"),
        ("system.link.bandwidth", 0.0, "bandwidth"),
        ("system.link.latency", -1.0, "latency"),
        ("system.degree", 3, r"degree = 3: in a pipeline, no chips share a layer"),
        ("system.chips", 0, "chips"),
        ("system.partition", "data", "partition"),
    ],
)
def test_fields_are_checked(path: str, value: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        replace(several("nvm_ideal", chips=2), path, value)


def test_chips_are_a_multiple_of_the_degree() -> None:
    with pytest.raises(BadInput, match=r"chips = 6: is not a multiple of degree = 4"):
        several("nvm_ideal", partition="tensor", chips=6, degree=4)
    assert several("nvm_ideal", partition="tensor", chips=6).system.sharing == 6  # type: ignore[union-attr]


def test_a_system_takes_no_part_in_keys_of_accuracy() -> None:
    one = load(Accelerator, "nvm_ideal")
    assert several(one, link=LINK, chips=2).physical() == one.physical()
