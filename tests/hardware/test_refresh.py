"""The interval of a refresh, from the loss that cells may have: by hand, and in prices."""

from __future__ import annotations

import math

import pytest

import ohmformer as of
from ohmformer.hardware.refresh import refresh_interval

GAIN_CELL = of.load("gain_cell_leroux_2025")


def with_drift(**drift: object) -> of.Accelerator:
    """The accelerator with another drift of K and V, refreshed before a tenth is lost."""
    hardware = of.replace(GAIN_CELL, "attention.refresh", None)
    hardware = of.replace(hardware, "attention.array.cell.drift", drift)
    return of.replace(hardware, "attention.refresh_loss", 0.1)


@pytest.mark.parametrize(
    ("drift", "seconds"),
    [
        ({"kind": "exponential", "tau": 5e-3}, 5e-3 * -math.log(0.9)),
        ({"kind": "exponential", "tau": 5e-3, "stretch": 0.5, "tau_spread": 0.3}, 5e-3 * math.log(0.9) ** 2),
        ({"kind": "power_law", "t0": 1e-3, "nu": 0.05, "nu_std": 0.01}, 1e-3 * 0.9 ** (-1 / 0.05)),
    ],
)
def test_the_interval_is_that_in_which_a_typical_cell_loses_the_share(drift: dict[str, object], seconds: float) -> None:
    assert refresh_interval(with_drift(**drift).attention) == pytest.approx(seconds)


def test_it_is_priced_as_the_stated_time_and_follows_the_cell() -> None:
    workload = of.shapes("gpt2", tokens=64)
    by_loss = with_drift(kind="exponential", tau=2e-3)
    interval = refresh_interval(by_loss.attention)
    stated = of.replace(of.replace(by_loss, "attention.refresh_loss", None), "attention.refresh", interval)
    a, b = of.simulate(workload, by_loss), of.simulate(workload, stated)
    assert a.placement.refresh is not None
    assert a.placement.refresh.interval == interval
    assert (a.latency, a.energy) == (b.latency, b.energy)
    faster = with_drift(kind="exponential", tau=2e-4)
    found = of.explore([(workload, each, of.LayerSerial()) for each in (by_loss, faster, stated)])
    assert found.latency[0] == pytest.approx(a.latency)
    assert found.latency[0] == pytest.approx(found.latency[2])
    assert found.latency[1] == pytest.approx(of.simulate(workload, faster).latency)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("attention.refresh", 1e-3, "both say when K and V are written again"),
        ("attention.array.cell.drift", {"kind": "none"}, "no cells of K and V ever lose this share"),
        ("attention.array.cell.drift", {"kind": "power_law", "t0": 1.0, "nu": 0.0}, "ever lose this share"),
        (
            "attention.array.cell.drift",
            {"kind": "power_law_table", "t0": 1.0, "g": [0, 1], "nu": [0.1, 0.05], "nu_std": [0, 0]},
            "do not all lose this share at the same time; state refresh",
        ),
        ("attention.refresh_loss", 1.0, "must be < 1"),
        ("attention.refresh_loss", 0.0, "must be > 0"),
    ],
)
def test_what_gives_no_interval_is_refused(path: str, value: object, said: str) -> None:
    with pytest.raises(of.BadInput, match=said) as caught:
        of.replace(with_drift(kind="exponential", tau=1e-3), path, value)
    assert "\n" not in str(caught.value)
