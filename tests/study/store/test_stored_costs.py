"""Costs are stored, and computed again only when what decides them has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ohmformer.hardware.price_notes import arrays_of
from ohmformer.schema import load
from ohmformer.study.cost import make_costs, study_costs
from ohmformer.study.results.export import results
from ohmformer.study.results.key import PACKAGE, PlainValues, as_json, code_digest, digest, versions
from ohmformer.study.store import stored_costs
from ohmformer.study.store.stored_costs import CODE, cost_keys, stored_prices
from ohmformer.workload.shapes import Transformer
from tests.house.test_rooms import not_in_keys

RATE = "cost.rate"


def study(*rates: str, **changes: Any) -> Any:
    content = {
        "name": "costs",
        "model": {"source": "shapes:bert-base", "seq_len": 64},
        "hardware": {"base": "xformer_tvlsi_2023"},
        "sweep": {RATE: list(rates)},
    }
    return make_costs({**content, **changes})


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rates of the points whose cost was computed."""
    rates: list[float] = []
    price = stored_costs.price

    def noted(settings: Any, chosen: Any) -> Any:
        rates.append(settings.cost.rate)
        return price(settings, chosen)

    monkeypatch.setattr(stored_costs, "price", noted)
    return rates


def test_a_stored_cost_is_not_computed_again(tmp_path: Path, priced: list[float]) -> None:
    plain = study_costs(study("1 Hz", "2 Hz"))
    for asked, new in ((study("1 Hz"), [1]), (study("1 Hz", "2 Hz"), [2]), (study("1 Hz", "2 Hz"), [])):
        priced.clear()
        with stored_prices(asked, tmp_path / "out") as price:
            found = study_costs(asked, price=price)
        assert priced == new
    assert found == plain
    stored = results(tmp_path / "out")
    assert [row["latency_s"] for row in stored.rows] == [point.cost.latency_s for point in plain.points]
    assert [row[RATE] for row in stored.rows] == ["1 Hz", "2 Hz"]


def test_a_stopped_run_keeps_the_costs_that_it_computed(tmp_path: Path, priced: list[float]) -> None:
    asked = study("1 Hz", "2 Hz", "3 Hz")
    with stored_prices(asked, tmp_path) as price:
        price(asked.points[0].settings, None)  # and the others never
    with stored_prices(asked, tmp_path) as price:
        study_costs(asked, price=price)
    assert priced == [1, 2, 3]


def test_keys_are_those_of_all_values_read_at_once() -> None:
    """Parts that points share are written once; the keys are the same as if each was written by itself."""
    shared = PlainValues()
    for point in study("1 Hz", "2 Hz").points:
        settings, costs = point.settings, point.settings.canonical()
        sources = [repr(dict(array.cell.provenance).get("endurance")) for _, array in arrays_of(settings.hardware)]
        asked = {
            "work": load(Transformer, "bert-base").canonical(),
            **{name: costs[name] for name in ("model", "hardware", "mitigation", "dataflow", "cost", "rules")},
            "endurance": sources,
            "chosen": None,
        }
        answering = {"versions": {"ohmformer": versions()["ohmformer"]}, "code": code_digest(PACKAGE, CODE)}
        question = digest(asked)
        found = cost_keys(settings, None, shared)
        assert (found.question, found.key) == (question, digest(["cost", question, answering]))
        assert found.version == as_json(answering)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"source": "shapes:bert-large", "seq_len": 64}},
        {"model": {"source": "shapes:bert-base", "seq_len": 65}},
        {"hardware": {"base": "nvm_ideal"}},
        {"hardware": {"base": "xformer_tvlsi_2023", "projection.array.cost.read_energy": "1 pJ"}},
        {"dataflow": {"kind": "sequence_blocking", "block": 16}},
    ],
)
def test_all_that_decides_a_cost_is_in_its_key(changes: dict[str, Any]) -> None:
    first, second = (
        cost_keys(each.points[0].settings, None, PlainValues()) for each in (study("1 Hz"), study("1 Hz", **changes))
    )
    assert first.key != second.key


@pytest.mark.slow
def test_keys_cover_every_module_that_computes_costs() -> None:
    others = not_in_keys("study.cost", CODE)
    assert sorted(set(others) - READING) == []


READING = {
    *("terminal.files", "study.read_study", "study.sweep", "study.overwriting", "study.permission"),
    *("study.failures", "terminal.memory"),
    *(
        "study.results.collection",
        "study.results.document",
        "study.store.old_code",
        "study.noise_labels",
        "study.loaded",
    ),
}
"""What reads studies into settings, and writes files."""
