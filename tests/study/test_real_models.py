"""Studies of models and data that do not ship: metrics, rules, probes, and what their results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.nn.calibration.remedies import REMEDIES
from ohmformer.report.caveats import caveats
from ohmformer.report.figure import draw
from ohmformer.report.json_schema import file_schema
from ohmformer.report.table import software_line, study_tables
from ohmformer.report.verdict import clip_verdicts
from ohmformer.study.read_study import make_study
from ohmformer.study.results.document import study_results, to_json
from ohmformer.study.results.key import Identity, point_keys
from ohmformer.study.results.spec import StudyResults
from ohmformer.study.run import run_study, study_keys
from ohmformer.study.spec import Study
from tests.study.small import GAMMA
from tests.study.small import document as small
from tests.tasks import tiny

HERE = Identity(model="m", task="t")


def study(model: dict[str, Any], task: dict[str, Any], **changes: Any) -> Study:
    return make_study(
        {
            "name": "real",
            "model": model,
            "task": task,
            "hardware": {"base": "clipformer_tcad_2024"},
            "trials": {"chips": 2},
            "sweep": {"mitigation.clip": ["none", {"alpha": 2.0, "beta": 0.5}], GAMMA: [0, 4]},
            **changes,
        }
    )


def results(asked: Study, out: Path) -> StudyResults:
    """Computed once and stored; the document is one that every report takes."""
    found = run_study(asked, out, progress=False)
    assert run_study(asked, out, progress=False) == found
    content = study_results(asked, study_keys(asked), found)
    json.loads(to_json(content))
    assert study_tables(content)
    assert draw(content).axes
    return content


def metric(content: StudyResults) -> set[str]:
    return {point.accuracy.metric for point in content.points}


def test_images_of_a_hugging_face_model(tmp_path: Path) -> None:
    folder = tiny.deit(tmp_path / "deit")
    task = {"source": f"imagefolder:{tiny.photographs(tmp_path / 'images')}", "calibration": 4}
    content = results(study({"source": f"hf:{folder}"}, task), tmp_path / "out")
    assert metric(content) == {"top1"}
    assert content.versions["transformers"]
    assert all(point.capture.crossbars["Q K"] == 1 for point in content.points)
    assert "in percent" in software_line(content)


def test_a_probe_stays_digital_and_the_result_says_so(tmp_path: Path) -> None:
    task = {"source": f"csv:{tiny.reviews(tmp_path / 'r.csv', 80)}", "probe": True, "calibration": 8}
    asked = study({"source": f"hf:{tiny.bert(tmp_path / 'bert')}"}, task, mitigation={"clip": "calibrated"}, sweep=[])
    content = results(asked, tmp_path / "out")
    (point,) = content.points
    assert point.capture.digital == ("probe (by rule)",)
    assert point.accuracy.chosen.recipe in REMEDIES["clip"]
    assert any("The probe behind the features" in sentence for sentence in caveats(content))


@pytest.mark.slow
def test_correlations_are_no_percentages(tmp_path: Path) -> None:
    task = {"source": f"csv:{tiny.ratings(tmp_path / 'p.csv')}", "metric": "spearman"}
    content = results(study({"source": f"hf:{tiny.bert(tmp_path / 'bert')}"}, task), tmp_path / "out")
    assert metric(content) == {"spearman"}
    assert all(point.accuracy.score_sums is None for point in content.points)
    assert "%" not in software_line(content).replace("95 %", "")
    (verdict,) = clip_verdicts(content)
    assert " points" not in verdict


def test_perplexity_through_a_cache(tmp_path: Path) -> None:
    task = {"source": f"text:{tiny.prose(tmp_path / 't.txt')}", "window": 16, "prefill": 8, "step": 4, "limit": 4}
    content = results(study({"source": f"hf:{tiny.llama(tmp_path / 'llama')}"}, task), tmp_path / "out")
    assert metric(content) == {"perplexity"}
    assert all(point.accuracy.mean > 1 for point in content.points)
    assert "lower is better" in software_line(content)


def test_fidelity_of_random_weights_says_that_they_are_random(tmp_path: Path) -> None:
    folder = tiny.deit(tmp_path / "deit")
    task = {"source": f"imagefolder:{tiny.photographs(tmp_path / 'images')}", "metric": "fidelity", "calibration": 4}
    content = results(study({"source": f"hf:{folder}", "weights": "random"}, task), tmp_path / "out")
    assert {point.accuracy.software for point in content.points} == {1.0}
    assert content.points[0].accuracy.mean < 1
    assert any(sentence.startswith("Weights of hf:") and "random (seed 0)" in sentence for sentence in caveats(content))


@pytest.mark.filterwarnings("ignore::ohmformer.nn.calibration.calibrate.SingleInput")
def test_features_without_classes_can_be_calibrated_for(tmp_path: Path) -> None:
    task = {"source": f"csv:{tiny.ratings(tmp_path / 'p.csv')}"}
    asked = study({"source": f"hf:{tiny.bert(tmp_path / 'bert')}"}, task, mitigation={"kv": "auto"}, sweep=[])
    (point,) = results(asked, tmp_path / "out").points
    assert point.accuracy.chosen.recipe in REMEDIES["auto"]


def rules(table: Any) -> Study:
    return make_study(small(rules=table))


def test_rules_reach_the_conversion(tmp_path: Path) -> None:
    asked = rules({"blocks.0.mlp.*": "digital", "blocks.*": {"scale": "column"}})
    (point,) = results(asked, tmp_path).points
    assert [line for line in point.capture.digital if "mlp" in line]


def test_the_order_of_rules_is_part_of_the_key() -> None:
    first, second = {"blocks.*": "digital", "*": "projection"}, {"*": "projection", "blocks.*": "digital"}
    keys = {point_keys(rules(table).points[0].settings, HERE).key for table in (first, second, {})}
    assert len(keys) == 3
    assert point_keys(rules(first).points[0].settings, HERE).key in keys


def test_rules_can_be_swept_and_set() -> None:
    asked = make_study(small(sweep={"rules": [{}, {"*.qkv": {"percentile": 99.9}}]}))
    assert [len(point.settings.rules) for point in asked.points] == [0, 1]
    asked = make_study(small(rules={"*.a.b": "digital"}), ["rules.blocks.*.qkv=projection", "rules.*.a.b=projection"])
    assert [(pattern, rule.on) for pattern, rule in asked.points[0].settings.rules] == [
        ("*.a.b", "projection"),
        ("blocks.*.qkv", "projection"),
    ]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"*": {"scale": "colum"}}, r"study: rules\.\*\.scale = 'colum': must be"),
        ({"*": "digitl"}, r"study: rules\.\*.*did you mean 'digital'"),
        ({"blocks": {"0": {"qkv": "digital"}}}, r"rules\.blocks: .*put a pattern with dots in quotes"),
        ("digital", "rules = 'digital': is not a table"),
    ],
)
def test_rules_that_cannot_be_used_are_one_line(table: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        rules(table)
    assert "\n" not in str(caught.value)


def test_the_schema_knows_the_new_fields() -> None:
    schema = file_schema("study")
    assert schema["properties"]["rules"]["additionalProperties"]["anyOf"][1] == {"$ref": "#/$defs/Rule"}
    assert {"weights", "seed", "head"} <= set(schema["$defs"]["ModelChoice"]["properties"])
    assert {"metric", "probe", "prefill"} <= set(schema["$defs"]["TaskChoice"]["properties"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"source": "python:tests.study.small:model", "weights": "random"}}, "only for timm: and hf:"),
        (
            {"task": {"source": "python:tests.study.small:task", "probe": True}},
            "probe = True: does not apply to python",
        ),
        ({"task": {"source": "python:tests.study.small:task", "metric": "bleu"}}, "task.metric = 'bleu': must be"),
    ],
)  # fmt: skip
def test_fields_that_do_not_fit_are_one_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        run_study(make_study(small(**changes)), tmp_path, progress=False)
