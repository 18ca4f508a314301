"""What results and tables say of chips: number, size, traffic, and chips that no exposure takes."""

from __future__ import annotations

from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.cost import make_costs, study_costs
from ohmformer.study.results.spec import StudyCosts


def costs(**hardware: Any) -> StudyCosts:
    model = {"source": "shapes:gpt2", "phase": "decode", "context": 100}
    return study_costs(make_costs({"name": "chips", "model": model, "hardware": {"base": "nvm_ideal", **hardware}}))


LINK = {"bandwidth": "6.4 GB/s", "energy": "406 pJ/B", "latency": "5 ns"}


def test_one_chip_has_no_chips_in_its_result() -> None:
    (point,) = costs().points
    assert point.cost.chips is None


def test_results_say_number_size_and_traffic() -> None:
    found = costs(system={"chips": 3, "link": LINK})
    (point,) = found.points
    assert point.cost.chips is not None
    assert (point.cost.chips.count, point.cost.chips.groups, point.cost.chips.sharing) == (3, 3, 1)
    assert point.cost.chips.links_B == 2 * 768
    assert 3 * point.cost.chips.largest_area_m2 >= point.cost.area_m2
    (note,) = [note for note in found.notes if "over links" in note]
    assert note.startswith("3 chips of up to")
    assert note.endswith("in 3 groups: 1.536 kB over links")


def test_traffic_is_that_of_all_decoding_steps() -> None:
    model = {"source": "shapes:gpt2", "phase": "decode", "context": 100, "steps": 5}
    document = {"name": "x", "model": model, "hardware": {"base": "nvm_ideal", "system": {"chips": 3, "link": LINK}}}
    (point,) = study_costs(make_costs(document)).points
    assert point.cost.chips is not None
    assert point.cost.chips.links_B == 5 * 2 * 768


def test_a_chip_that_no_exposure_takes_is_never_silent() -> None:
    document = {
        "name": "large",
        "model": {"source": "shapes:llama-3-8b", "phase": "decode", "context": 4096},
        "hardware": {"base": "nvm_ideal"},
    }
    one = [note for note in study_costs(make_costs(document)).notes if "exposes" in note]
    assert one == [
        "one chip has 14,271 mm², and lithography exposes at most 858 mm² at once: give hardware.system to price "
        "several chips and their links"
    ]
    document["hardware"] = {"base": "nvm_ideal", "system": {"chips": 4, "link": LINK}}
    several = [note for note in study_costs(make_costs(document)).notes if "exposes" in note]
    assert len(several) == 1
    assert several[0].startswith("the largest of several chips has")
    assert not [note for note in costs().notes if "exposes" in note]


@pytest.mark.parametrize(
    ("system", "message"),
    [
        ({"chips": 2}, r"hardware.system.link"),
        ({"chips": 2, "link": {**LINK, "bandwidth": "0 B/s"}}, r"hardware.system.link.bandwidth"),
        ({"chips": 2, "link": {**LINK, "energy": 3}}, r"hardware.system.link.energy"),
        ({"chips": 99, "link": LINK}, r"hardware.system.chips = 99"),
        ({"chips": 2, "degree": 2, "link": LINK}, r"degree = 2: in a pipeline"),
        ({"chips": 2, "latency": "1 ns", "link": LINK}, r"hardware.system.latency"),
    ],
)
def test_bad_systems_are_one_line(system: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        costs(system=system)
    assert "\n" not in str(error.value)
