"""What --set and study files may hold and no study can use: one line with path, value and remedy, at once."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ohmformer.dataflow.simulate import Run
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
    ("hardware.attention.array.cell.write_noise.kind={}", r"write_noise.kind: is no kind; .*known: lognormal"),
    ("rules=[inf]", r"rules = \[inf\]: is not a table; write \[rules\]"),
    ("rules=['a']", r"rules = \['a'\]: is not a table; write \[rules\]"),
    ("rules=['ab']", r"rules = \['ab'\]: is not a table; write \[rules\]"),
    ("rules=3", r"rules = 3: is not a table; write \[rules\]"),
    ("hardware.base=3", r"hardware.base = 3: must be the name of a library accelerator; write it in quotes"),
    ("hardware.base=" + "a" * 300 + ".toml", "no such file; give the path of a TOML file"),
    ("cost.rate=1e300 Hz", "is no magnitude that occurs in Hz; take one between"),
    ("hardware.chip.vector.energy_per_op=1e300 J", "is no magnitude that occurs in J"),
    ("model.steps=1e6", "must be a whole number"),
    ("simulation.levle=5", r"simulation.levle: is no key here; did you mean 'level'\?"),
    ("trials.chips=0", "trials.chips = 0: must be >= 1; raise it"),
    ("seed=1.5", "seed = 1.5: must be a whole number"),
    ("a." * 100 + "a=1", "unknown key 'a'"),
    ("model." + "a." * 100 + "a=1", "nested too deeply"),
    ("=", "is no change; write PATH=VALUE"),
    ("model.\x1b[31mheads=3", r"model.\\x1b\[31mheads: is no key here"),
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
    monkeypatch.setattr(Run, "energy", float("inf"))
    with pytest.raises(BadInput, match="study: energy_J is not finite; correct"):
        study_costs(make_costs(COST))
