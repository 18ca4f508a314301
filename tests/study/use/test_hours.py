"""Hours of use in studies: writes by hand, the key of a result, and a chip that only gets worse."""

from __future__ import annotations

from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.evaluate_point import evaluate_point
from ohmformer.study.read_study import accuracy_half, cost_half, make_whole
from ohmformer.study.results.key import Identity, point_keys
from ohmformer.study.spec import Settings, Study
from ohmformer.study.use.hours import in_use, writes_after
from tests.study.small import document

WEAR = {"kind": "weibull", "stuck_at_g_max": 0.5, "shape": 1.5}
CELL = "hardware.attention.array.cell"


def study(*hours: float, sweep: dict[str, Any] | None = None, **changes: Any) -> Study[Settings]:
    whole = make_whole(
        document(sweep={"simulation.hours": list(hours), f"{CELL}.wear": [WEAR], **(sweep or {})}, **changes)
    )
    return in_use(accuracy_half(whole), cost_half(whole))


def writes(settings: Settings) -> float:
    return float(settings.hardware.attention.array.writes)


def test_writes_are_those_of_the_passes_in_the_time() -> None:
    """An encoder whose layers have their own arrays writes each cell once per pass."""
    points = study(0, 2.5, 100, cost={"rate": "20 Hz"}).points
    assert [writes(point.settings) for point in points] == pytest.approx([0, 2.5 * 3600 * 20, 100 * 3600 * 20])
    ages = [point.settings.hardware.projection.array.age for point in points]
    assert ages == [0.0, 9000.0, 360000.0]
    (spare,) = study(1, cost={"rate": "20 Hz", "spare": 3.0}).points
    assert writes(spare.settings) == pytest.approx(3600 * 20 / 4)


def test_without_a_rate_passes_follow_one_another() -> None:
    whole = make_whole(document(sweep={f"{CELL}.wear": [WEAR]}))
    (costs,) = cost_half(whole).points
    from ohmformer.study.cost import price

    found = price(costs.settings)
    assert found.lifetime is not None
    after = writes_after(3.0, costs.settings)
    assert after == {role: pytest.approx(3 * 3600 / found.latency_s) for role in ("attention.key", "attention.value")}
    per_hour = found.lifetime.writes_per_cell_s * 3600
    assert after[found.lifetime.role] == pytest.approx(3 * per_hour), "the same writes as for the lifetime"


def test_leveling_takes_the_mean_cell_and_verified_writes_count_each_time() -> None:
    shared = {"hardware.attention.arrays": ["shared"]}
    most, mean = (
        writes(study(1, sweep=shared, cost={"rate": "1 Hz", "leveling": on}).points[0].settings) for on in (0 > 1, True)
    )
    assert most >= mean > 0
    verify = {"hardware.attention.array.write_verify": [{"writes": 4, "tolerance": 0.02}]}
    (verified,) = study(1, sweep=verify, cost={"rate": "1 Hz"}).points
    assert 3600 < writes(verified.settings) <= 4 * 3600


def test_the_key_of_a_result_holds_hours_writes_and_endurance() -> None:
    def keys(**changes: Any) -> list[str]:
        return [point_keys(point.settings, Identity("m", "t")).key for point in study(0, 1, 2, **changes).points]

    first = keys(cost={"rate": "20 Hz"})
    assert len(set(first)) == 3
    slower = keys(cost={"rate": "10 Hz"})
    assert (first[0] == slower[0], first[1] == slower[1]) == (True, False)
    weaker = keys(cost={"rate": "20 Hz"}, sweep={f"{CELL}.endurance": [1e7]})
    assert not set(first) & set(weaker)


def test_a_chip_only_gets_worse() -> None:
    """Writes without noise, so that only stuck cells change results."""
    quiet = {
        f"{CELL}.write_noise": [{"kind": "none"}],
        "hardware.projection.array.cell.write_noise": [{"kind": "none"}],
    }
    results = [
        evaluate_point(point.settings) for point in study(0, 3, 10, 1000, sweep=quiet, cost={"rate": "1 kHz"}).points
    ]
    means = [result.accuracy.mean for result in results]
    assert means[0] > means[-1]
    assert means == sorted(means, reverse=True)


@pytest.mark.parametrize(
    ("hours", "message"), [(-1, "simulation.hours"), (1e9, "simulation.hours"), ("1 h", "simulation.hours")]
)
def test_hours_that_are_no_time_are_refused(hours: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        study(hours)


def test_worn_out_arrays_and_unknown_pulses_are_refused_with_the_point() -> None:
    closing = {f"{CELL}.wear": [{**WEAR, "w": 0.2, "n0": 1.0}]}
    message = (
        r"study: simulation.hours: hardware.attention.key.array.*wear leaves no window .*at .*simulation.hours = 9000"
    )
    with pytest.raises(BadInput, match=message):
        study(0, 9000.0, sweep=closing, cost={"rate": "1 MHz"})
    settings = accuracy_half(make_whole(document(simulation={"batch": 5, "hours": 3}))).points[0].settings
    with pytest.raises(BadInput, match=r"simulation.hours = 3: needs the cost half"):
        evaluate_point(settings)


def test_a_compensation_of_keys_is_refused_before_anything_runs() -> None:
    message = r"study: hardware.attention.key.array.drift_compensation = 'global': holds keys"
    with pytest.raises(BadInput, match=message):
        accuracy_half(make_whole(document(sweep={"hardware.array.drift_compensation": ["none", "global"]})))
