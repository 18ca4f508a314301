"""Stored results are checked when they are read."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.results.costs import EnergyBy
from ohmformer.study.results.document import to_json
from ohmformer.study.results.part import made
from ohmformer.study.results.spec import Accuracy, PointResult, results_schema
from ohmformer.study.store.store import Store
from ohmformer.study.store.tables import checksum
from tests.report.results import answer, point, study


def result(**changes: Any) -> dict[str, Any]:
    """A stored result; changes have dots as '__', and None removes a key."""
    found: dict[str, Any] = json.loads(json.dumps(answer().model_dump(by_alias=True)))
    for path, value in changes.items():
        *parents, last = path.split("__")
        table = found
        for parent in parents:
            table = table[parent]
        if value is None:
            del table[last]
        else:
            table[last] = value
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy__mean": 2}, {"accuracy__mean": "0.5"}, {"accuracy__mean": float("inf")}, {"accuracy__mean": None},
        {"accuracy__ci95": [0.4, 1e30, 3]}, {"accuracy__ci95": [0.6, 0.4]}, {"accuracy__ci95": [0.4, float("nan")]},
        {"accuracy__software": -1e300}, {"accuracy__software": True}, {"accuracy__chips": []}, {"accuracy__chips": 3},
        {"accuracy__samples": 0}, {"accuracy__samples": 1.5}, {"accuracy__metric": "top"}, {"accuracy__level": "x"},
        {"accuracy__hits": [3]}, {"accuracy__hits": ["1"]}, {"accuracy__hits": [1] * 199}, {"accuracy__samples": 2},
        {"accuracy__ci95": [0.4, 1e30]}, {"accuracy__ci95": [-1e300, 0.6]}, {"accuracy__hits": [10**400] * 200},
        {"write_noise__key": {"kind": "sqrt_range", "gamma": 10**400, "sigma": 1}},
        {"accuracy__more": 1}, {"accuracy": None},
        {"capture": None}, {"capture__crossbars": {"x W": -1}}, {"capture__digital": "x"}, {"write_noise": None},
        {"write_noise__key": {"kind": "sqrt_range", "gamma": 1.0}}, {"write_noise__key": {}}, {"notes": "x"},
        {"accuracy__chosen": {"recipe": "clip", "clips": {"a.K": {"alpha": "x", "beta": 0.5}}}},
        {"accuracy__chosen": {"recipe": "clip", "clips": {"a.K": [{"alpha": 1.0, "beta": 0.5}, "model"]}}},
        {"accuracy__chosen": {"recipe": "auto", "kv": {"a.K": {"basis": "none"}}}},
    ],
)  # fmt: skip
def test_a_result_that_no_evaluation_gives_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    key, file = "a" * 64, tmp_path / "results.sqlite"
    assert PointResult.model_validate(result()) == answer()
    with Store(file):
        pass
    text = json.dumps(result(**changes))
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("INSERT INTO results VALUES (?, '', '', ?, ?)", (key, text, checksum(key, text)))
    with Store(file) as store:
        assert store.get([key]) == {}
        assert store.damaged == [key]


def test_a_result_is_written_as_it_was_read() -> None:
    """Whole numbers stay whole, what is absent stays absent, and kinds of others keep their parameters."""
    other = {"kind": "mine", "sigma": [1, 2], "more": {"x": None}}
    content = result(write_noise__key=other, accuracy__left_out=[0.5, 0.25], notes=["n"])
    assert json.dumps(PointResult.model_validate(content).model_dump(by_alias=True)) == json.dumps(content)
    del content["accuracy"]["hits"]
    assert "hits" not in PointResult.model_validate(content).model_dump(by_alias=True)["accuracy"]


def test_scores_of_samples_are_left_out_of_files_alone() -> None:
    document = study(point(0.5))
    assert document.model_dump(by_alias=True)["points"][0]["accuracy"]["hits"]
    assert "hits" not in json.loads(to_json(document))["points"][0]["accuracy"]


def test_a_computed_number_that_is_not_finite_is_one_line() -> None:
    with pytest.raises(BadInput, match=r"^energy_by\.component\.adc is not finite; correct the numbers"):
        made(EnergyBy, "energy_by.", component={"adc": math.inf}, operation={}, engine={})
    with pytest.raises(BadInput, match=r"^accuracy\.ci95\.1 is not finite"):
        made(Accuracy, "accuracy.", **{**result()["accuracy"], "ci95": (0.0, math.nan)})


def test_the_schema_has_every_document() -> None:
    schema = results_schema()
    assert {"StudyResults", "ClaimResults", "Accuracy", "CostResult"} <= set(schema["$defs"])
    assert "schema" in schema["$defs"]["StudyResults"]["required"]


def test_the_keys_of_a_point_keep_their_order_in_files() -> None:
    """Readers see first what was set."""
    (found,) = study(point(0.5, label="x", **{"task.limit": 3})).points
    keys = ["set", "label", "accuracy", "capture", "write_noise", "notes"]
    assert list(found.model_dump(by_alias=True)) == keys
    assert list(type(found).model_fields) == [*keys, "old_code", "cost"]
