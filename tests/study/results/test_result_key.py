"""A key changes with everything that decides the answer, and with nothing else."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmformer import registry
from ohmformer.study.read_study import make_study
from ohmformer.study.results import key as result_key
from ohmformer.study.results.key import Identity, PlainValues, code_digest, digest, point_keys
from tests.study.small import GAMMA, document

HERE = Identity(model="m", task="t")

DECISIVE = {
    "seed": [1, 2],
    "model.source": ["bundled:a", "bundled:b"],
    "hardware.attention.array.bits": [4, 6],
    "hardware.projection.array.bits": [4, 6],
    GAMMA: [2, 3.5],
    "hardware.attention.array.cell.g_max": ["11 uS", "12 uS"],
    "hardware.attention.array.adc.bits": [6, 8],
    "hardware.attention.arrays": ["shared"],
    "mitigation.clip": ["calibrated", {"alpha": 2.0, "beta": 0.25}, {"alpha": 1.0, "beta": 0.25}],
    "simulation.level": ["noise", "cell"],
    "simulation.batch": [7, 8],
    "trials.chips": [3, 4],
}
CHANGES = st.fixed_dictionaries({}, optional={path: st.sampled_from(values) for path, values in DECISIVE.items()})


def key(changes: dict[str, Any], identity: Identity = HERE) -> str:
    (point,) = make_study(document(sweep={path: [value] for path, value in changes.items()})).points
    return point_keys(point.settings, identity).key


@hypothesis.settings(max_examples=40)
@given(CHANGES, st.sampled_from([(path, value) for path, values in DECISIVE.items() for value in values]))
def test_keys_are_equal_exactly_when_the_settings_are(one: dict[str, Any], change: tuple[str, Any]) -> None:
    other = {**one, change[0]: change[1]}
    assert (key(one) == key(other)) == (one == other)


@pytest.mark.parametrize("path", DECISIVE)
def test_everything_that_decides_is_in_the_key(path: str) -> None:
    found = {key({}), *(key({path: value}) for value in DECISIVE[path])}
    assert len(found) == 1 + len(DECISIVE[path])


@pytest.mark.parametrize("field", ["model", "task", "device"])
def test_other_weights_data_or_devices_are_another_answer(field: str) -> None:
    assert key({}, replace(HERE, **{field: "other"})) != key({})


def test_other_versions_are_another_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key({})
    for package in ("ohmformer", "torch"):
        with monkeypatch.context() as patch:
            patch.setattr(result_key, "version", lambda name, package=package: "99" if name == package else "1")
            first = key({})
            patch.setattr(result_key, "version", lambda name: "1")
            assert key({}) != first
    assert key({}) == before


def test_other_code_is_another_answer_but_not_another_report(tmp_path: Path) -> None:
    def digest(**files: str) -> str:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for folder in ("nn", "study", "report", "streams"):
            (root / folder).mkdir(parents=True)
        for name, text in {"nn/linear": "1", "study/evaluate_point": "1", **files}.items():
            (root / f"{name}.py").write_text(text)
        return code_digest(root)

    assert digest() == digest(**{"report/table": "x", "study/run": "x", "cli": "x"})
    assert (
        len(
            {
                digest(),
                *(digest(**{name: "2"}) for name in ("nn/linear", "study/evaluate_point", "nn/other", "streams/keys")),
            }
        )
        == 5
    )
    assert len(code_digest()) == 64


def test_the_code_of_a_base_class_from_a_third_package_is_part_of_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    base, derived = f"base_{tmp_path.name.replace('-', '_')}", f"derived_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{base}.py").write_text("import ohmformer as of\n\nclass Base(of.GaussianWriteNoise):\n    pass\n")
    (tmp_path / f"{derived}.py").write_text(f"from {base} import Base\n\nclass Derived(Base):\n    pass\n")
    cls = importlib.import_module(derived).Derived
    before = registry.code_digest(cls)
    (tmp_path / f"{base}.py").write_text("# another equation\n")
    assert registry.code_digest(cls) != before


@pytest.mark.parametrize(
    ("one", "other"),
    {
        "how a number is written": ({GAMMA: 5}, {GAMMA: 5.0}),
        "how a unit is written": (
            {"hardware.attention.array.cell.g_max": "11 uS"},
            {"hardware.attention.array.cell.g_max": "0.011 mS"},
        ),
        "which of two paths was taken": (
            {GAMMA: 5},
            {f"hardware.attention.{role}.array.cell.write_noise.gamma": 5 for role in ("key", "value")},
        ),
        "the title of the hardware": ({}, {"hardware.title": "mine"}),
        "a source": (
            {GAMMA: 5},
            {GAMMA: {"value": 5, "source": "somewhere", "kind": "assumed", "how": "guess"}},
        ),
    }.values(),
)
def test_what_decides_nothing_changes_nothing(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert key(one) == key(other)


def test_name_label_and_the_spelling_of_defaults_change_nothing() -> None:
    (plain,) = make_study(document()).points
    (dressed,) = make_study(document(name="other", seed=0, mitigation={"clip": "none"}, sweep={"label": "x"})).points
    assert point_keys(plain.settings, HERE).key == point_keys(dressed.settings, HERE).key


def test_keys_are_those_of_all_values_read_at_once() -> None:
    """What points share is read once; the key is the same as if each point was read by itself, so old keys hold."""
    points = make_study(document(sweep={GAMMA: [0, 1], "hardware.attention.array.bits": [4, 6]})).points
    shared = PlainValues()
    for settings in [point.settings for point in points]:
        plain = settings.canonical()
        simulation = {name: value for name, value in plain["simulation"].items() if name != "age" or value is not None}
        assert simulation.pop("kernels") == "torch"  # the device says it
        content = {
            **{name: plain[name] for name in ("model", "rules", "mitigation", "seed")},
            "trials": {name: value for name, value in plain["trials"].items() if value is not None},
            "hardware": {name: value for name, value in settings.hardware.physical().items() if name != "title"},
            "task": {name: value for name, value in plain["task"].items() if name != "limit"},
            "simulation": simulation,
            "identity": {"model": "m", "task": "t", "device": "cpu"},
            "versions": {name: result_key.version(name) for name in ("ohmformer", "torch")},
            "code": code_digest(),
        }
        found = point_keys(settings, HERE, shared)
        assert found.key == digest(content)
        answering = {name: content.pop(name) for name in ("versions", "code")}
        assert found.version == json.dumps(answering, sort_keys=True, separators=(",", ":"))
        identity = content.pop("identity")
        assert found.question == digest([content, *identity.values(), [None, None]])


def test_the_question_is_the_same_for_other_code_and_another_one_for_other_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = (point.settings for point in make_study(document(sweep={GAMMA: [0, 1]})).points)
    before = point_keys(one, HERE)
    assert point_keys(two, HERE).question != before.question
    assert point_keys(one, replace(HERE, model="other")).question != before.question
    monkeypatch.setattr(result_key, "code_digest", lambda *_: "0" * 64)
    after = point_keys(one, replace(HERE, ages="a", prices="p"))
    assert after.question == before.question
    assert after.key != before.key
    assert after.version != before.version
