"""What --set and study files may hold and no study can use: one line with path, value and remedy, at once."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ohmformer.dataflow.timeline import Timeline
from ohmformer.errors import BadInput
from ohmformer.study.cost import make_costs, study_costs
from ohmformer.study.read_study import make_study
from ohmformer.study.results.key import digest
from ohmformer.study.spec import Settings, Study

COST: dict[str, Any] = {
    "name": "s",
    "model": {"source": "shapes:bert-base", "seq_len": 16},
    "hardware": "clipformer_tcad_2024_adc8",
}
ACCURACY: dict[str, Any] = {
    "name": "s",
    "model": {"source": "bundled:vit_digits"},
    "task": {"source": "bundled:digits"},
    "hardware": "clipformer_tcad_2024",
}

REFUSED = [
    (f"model.batch={800 * '['}{800 * ']'}", r"is not valid TOML \(nested too deeply\); correct the value"),
    (f"model.batch={4301 * '9'}", r"is not valid TOML \(a number has too many digits\)"),
    ("hardware.projection.kind=[1]", r"hardware.projection.kind = \[1\]: .*known: crossbar, digital"),
    ("hardware.attention.array.cell.write_noise.kind={}", r"write_noise.kind: is not a kind; .*known: lognormal"),
    ("rules=[inf]", r"rules = \[inf\]: is not a table; write \[rules\]"),
    ("rules=['a']", r"rules = \['a'\]: is not a table; write \[rules\]"),
    ("rules=['ab']", r"rules = \['ab'\]: is not a table; write \[rules\]"),
    ("rules=3", r"rules = 3: is not a table; write \[rules\]"),
    ("hardware.base=3", r"hardware.base = 3: must be the name of a library accelerator; write it in quotes"),
    ("hardware.base=" + "a" * 300 + ".toml", "no such file; give the path of a TOML file"),
    ("cost.rate=1e300 Hz", "is not a magnitude that occurs in Hz; take one between"),
    ("hardware.chip.vector.energy_per_op=1e300 J", "is not a magnitude that occurs in J"),
    ("model.steps=1e6", "must be a whole number"),
    ("simulation.levle=5", r"simulation.levle: is not a key here; did you mean 'level'\?"),
    ("trials.chips=0", "trials.chips = 0: must be >= 1; raise it"),
    ("seed=1.5", "seed = 1.5: must be a whole number"),
    ("a." * 100 + "a=1", "unknown key 'a'"),
    ("model." + "a." * 100 + "a=1", "nested too deeply"),
    ("=", "is not a change; write PATH=VALUE"),
    ("model.\x1b[31mheads=3", r"model.\\x1b\[31mheads: is not a key here"),
    ("model.\u200b=3", r"model.\\u200b: is not a key here; known"),
    ("task=", r"^study: --set task=: has no value; write PATH=VALUE"),
    ("model.source= ", r"has no value; write PATH=VALUE, and an empty text as PATH=''$"),
    ("sweep=1", r"sweep = 1: a sweep is changed by the paths that it sweeps; write"),
    ("sweep.seed=[1,2]", r"a sweep is changed by the paths that it sweeps"),
    ("name=x", r"name = 'x': the name of a study is written in its file"),
    ("model..source=1", r"model..source = 1: has an empty key; join the keys by single dots"),
    ("model.=1", "has an empty key"),
    (".=1", r"\. = 1: has an empty key; join the keys by single dots"),
    ("model. .x=1", "has an empty key"),
    ("rules.=digital", "has an empty key"),
    (".model=1", r"\.model = 1: has an empty key; join the keys by single dots"),
    (
        "model.source.x=1",
        r"model.source is 'shapes:bert-base', which has no keys; set model.source as a whole \(set by --set\)$",
    ),
    ("model.source.0=1", "model.source is 'shapes:bert-base', which has no keys"),
    ("hardware.attention.array.bits.0=1", "has no keys of its own; set it as a whole"),
    ("hardware.attention.key.9.x=1", r"hardware.attention.key.9: is not a key here; known"),
    ("sweeps=1", "unknown key 'sweeps'"),
    # keys that stand elsewhere, by their present or their former name
    (
        "hardware.attention.copies=2",
        r"is not a key here; did you mean hardware.attention.array.redundancy\? known: array, ",
    ),
    ("hardware.attention.key.copies=2", r"did you mean hardware.attention.key.array.redundancy\?"),
    ("hardware.projection.slice_base=2", r"did you mean hardware.projection.array.radix\?"),
    ("hardware.attention.gamma=2", r"did you mean hardware.attention.array.cell.write_noise.gamma\?"),
    ("hardware.attention.array.write_noise.gamma=2", r"did you mean hardware.attention.array.cell.write_noise\?"),
    (
        "simulation.chips=2",
        r"simulation.chips: is not a key here; did you mean trials.chips\? known: age, batch, hours, kernels, level",
    ),
    ("chips=2", r"unknown key 'chips'; did you mean trials.chips\? known: cost"),
    ("batch=2", r"did you mean model.batch or simulation.batch\?"),
    ("levelling=true", r"did you mean cost.leveling\?"),
]


@pytest.mark.parametrize(("change", "said"), REFUSED, ids=[change[:40] for change, _ in REFUSED])
def test_a_change_that_cannot_be_used_is_one_line(change: str, said: str) -> None:
    begun = time.process_time()
    with pytest.raises(BadInput, match=said) as caught:
        make_costs(COST, [change])
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 700
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["seed=1", "seed=2"], r"--set seed=2: overwrites --set seed=1; leave one of them out$"),
        (["seed=1", "model.batch=2", " seed = 1"], "--set seed=1: overwrites --set seed=1"),
        (
            ["hardware.attention.array.bits=4", "hardware.attention={}"],
            "overwrites --set hardware.attention.array.bits=4",
        ),
    ],
)
def test_a_change_that_overwrites_another_is_refused(changes: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        make_costs(COST, changes)
    make_costs(COST, ["hardware.attention.array.bits=4", "hardware.attention.array.rows=64", "seed=1"])
    make_costs(COST, ["hardware.base=nvm_ideal", "hardware.attention.array.bits=4"])


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("dataflow", {"kynd": 3}, "dataflow"),
        ("cost", {"rate": "20 V"}, r"cost.rate = '20 V': has the unit 'V' where Hz is expected"),
        ("model", {"source": "bundled:vit_digits", "steps": 0}, "model.steps = 0: must be >= 1"),
        ("model", {"source": "bundled:vit_digits", "phase": "x"}, "model.phase = 'x': must be"),
    ],
)
def test_accuracy_checks_the_sections_of_cost(path: str, value: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        make_study({**ACCURACY, path: value})
    make_study({**ACCURACY, "dataflow": {"kind": "layer_serial"}, "cost": {"rate": "20 Hz"}})


def test_a_sweep_of_too_many_points_is_refused_before_they_are_made() -> None:
    axes = {f"mitigation.weights.percentile.{n}": list(range(1, 200)) for n in range(40)}
    begun = time.process_time()
    with pytest.raises(BadInput, match="sweep: makes more than 100,000 points; give fewer values"):
        make_costs({**COST, "sweep": axes})
    assert time.process_time() - begun < 2


def test_rules_of_arrays_that_never_wear_have_a_key() -> None:
    """Infinities are text in keys, since JSON has none."""
    rule = {"array": {"base": "clipformer_2024", "cell.endurance": float("inf")}}
    study: Study[Settings] = make_study({**ACCURACY, "rules": {"*": rule}})
    plain = study.points[0].settings.canonical()
    assert digest(plain) == digest(json.loads(json.dumps(plain, allow_nan=False)))


def test_a_price_that_is_not_finite_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Timeline, "energy_by", lambda *_: {"adc": float("inf")})
    with pytest.raises(BadInput, match=r"study: energy_by\.component\.adc is not finite; correct"):
        study_costs(make_costs(COST))


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["trials.chips=abc"], "without unit and quotes (set by --set)"),
        (["hardware.projection.array.rows=0"], "raise it (set by --set)"),
        (["seed=1"], "s.toml: trials.chips = 0: must be >= 1; raise it"),
    ],
)
def test_messages_say_whether_the_file_or_a_change_holds_the_value(sets: list[str], message: str) -> None:
    document = ACCURACY if sets != ["seed=1"] else {**ACCURACY, "trials": {"chips": 0}}
    with pytest.raises(BadInput) as caught:
        make_study(document, sets, where="s.toml")
    assert str(caught.value).endswith(message)
