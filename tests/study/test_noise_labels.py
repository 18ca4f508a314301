"""A label computed from a point says where its noise is, whatever was set."""

from __future__ import annotations

from typing import Any

import pytest

from ohmformer.study.noise_labels import noise_name, static_note
from ohmformer.study.read_study import make_study, read_study
from ohmformer.study.results.document import study_results
from ohmformer.study.results.spec import RoleNoise
from ohmformer.study.spec import Study
from tests.report.results import GAMMA, answer
from tests.study.small import document


def noise(gamma: float, sigma: float = 0.2) -> dict[str, Any]:
    return {"kind": "sqrt_range", "gamma": gamma, "sigma": sigma}


@pytest.mark.parametrize(
    ("projection", "key", "value", "name"),
    [
        (noise(7, 0.02), noise(0), noise(0), "static weights only (γσ 0.14)"),
        (noise(0), noise(7), None, "K only (γσ 1.4)"),
        (None, {"kind": "none"}, noise(4), "V only (γσ 0.8)"),
        (noise(0), noise(7), noise(7), "K and V (γσ 1.4)"),
        (noise(7, 0.02), noise(7), noise(7), "all: static weights (γσ 0.14), K and V (γσ 1.4)"),
        (noise(0), {"kind": "uniform", "sigma": 0.1}, {"kind": "polynomial"}, "K (uniform σ 0.1), V (polynomial)"),
        (None, noise(0), {"kind": "lognormal", "sigma": 0.0}, "nothing"),
        (
            {**noise(1), "write_verify": {}},
            noise(1),
            noise(1),
            "all: static weights (γσ 0.2, verified), K and V (γσ 0.2)",
        ),
        ({**noise(0), "write_verify": {}}, noise(0), noise(0), "nothing"),
    ],
)  # fmt: skip
def test_noise_has_a_name(projection: Any, key: Any, value: Any, name: str) -> None:
    assert noise_name(RoleNoise.model_validate({"projection": projection, "key": key, "value": value})) == name


def labels(study: Study) -> list[str]:
    results = [answer() for _ in study.points]
    found = study_results(study, [""] * len(results), results).points
    return [entry.label for entry in found if entry.label]


DEMO = [
    "noise in static weights only (γσ 0.14)",
    "noise in K only (γσ 1.4)",
    "noise in V only (γσ 1.4)",
    "noise in all: static weights (γσ 0.14), K and V (γσ 1.4)",
]


def test_the_demo_is_named_by_what_it_has() -> None:
    assert labels(read_study("demo")) == DEMO
    assert labels(read_study("demo", [f"{GAMMA}=4"])) == DEMO
    halved = labels(read_study("demo", ["hardware.attention.array.cell.write_noise.sigma=0.1"]))
    assert halved[1] == "noise in K only (γσ 0.7)"


def test_a_label_without_a_place_is_left_alone() -> None:
    study = make_study(document(sweep={"label": "mine {x}", GAMMA: 3}))
    assert labels(study) == ["mine {x}"]


def test_where_the_sigma_of_static_weights_comes_from() -> None:
    (plain,) = make_study(document()).points
    assert static_note(plain.settings.hardware).startswith("σ of static weights 0.02 (assumed: write-verify leaves")
    same = ["hardware.projection.array.cell.write_noise.sigma=0.2"]
    assert static_note(make_study(document(), same).points[0].settings.hardware) == ""
    own = ["hardware.projection.array.cell.write_noise.sigma=0.1"]
    assert static_note(make_study(document(), own).points[0].settings.hardware) == "σ of static weights 0.1"
    assert static_note(make_study(document(), ["hardware.projection.kind=digital"]).points[0].settings.hardware) == ""
