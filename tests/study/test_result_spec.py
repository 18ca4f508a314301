"""Stored results are checked when they are read."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.read_study import make_study
from ohmformer.study.results.spec import check_result, results_schema
from ohmformer.study.results.document import document as results_document
from tests.report.results import point
from tests.study.small import document


def result(**changes: Any) -> dict[str, Any]:
    """A stored result; changes have dots as '__', and None removes a key."""
    found = copy.deepcopy(point(0.5))
    del found["set"]
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
        {"accuracy__hits": [3]}, {"accuracy__hits": ["1"]}, {"accuracy__more": 1}, {"accuracy": None},
        {"capture": None}, {"capture__crossbars": {"x W": -1}}, {"capture__digital": "x"}, {"write_noise": None},
        {"write_noise__key": {"kind": "sqrt_range", "gamma": 1.0}}, {"write_noise__key": {}}, {"notes": "x"},
    ],
)  # fmt: skip
def test_a_result_that_no_evaluation_gives_is_refused(changes: dict[str, Any]) -> None:
    check_result("a" * 64, result())
    study = make_study(document())
    with pytest.raises(
        BadInput, match=r"^the result aaaaaaaaaaaa is damaged \(.*compute it again with --fresh$"
    ) as caught:
        results_document(study, ["a" * 64], [result(**changes)])
    assert "\n" not in str(caught.value)


def test_the_schema_has_every_document() -> None:
    schema = results_schema()
    assert {"StudyResults", "ClaimResults", "Accuracy", "CostResult"} <= set(schema["$defs"])
    assert "schema" in schema["$defs"]["StudyResults"]["required"]
