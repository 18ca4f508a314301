"""The page of a study: sections where results have their data, and an answer that follows from the numbers."""

from __future__ import annotations

import pytest

from ohmformer.errors import BadInput
from ohmformer.report.page.content import Page
from ohmformer.report.page.record_sections import ran_section
from ohmformer.report.page.study_page import study_page
from ohmformer.report.page.trade_off import front
from ohmformer.study.results.requirements import Requirements
from ohmformer.study.results.spec import Capture, ClaimResults, MeasuredPoint, StudyResults
from tests.report.page.documents import both, cost, costs, record
from tests.report.results import DEMO, changed, point, study

SPENT = ["cost", "energy", "lifetime"]
RECORDED = ["area", "timeline", "roofline", "ran", "hardware", "repeat"]


def names(page: Page) -> list[str]:
    return [section.name for section in page.sections]


def test_sections_are_those_that_the_results_have_data_for() -> None:
    assert names(study_page(DEMO)) == ["accuracy", "ran", "hardware", "repeat"]
    assert names(study_page(costs(cost()))) == [*SPENT, "hardware", "repeat"]
    assert names(study_page(costs(cost(), record=record()))) == [*SPENT, *RECORDED]
    assert names(study_page(both())) == ["accuracy", "front", *SPENT, *RECORDED]


def test_results_without_a_record_say_what_they_lack() -> None:
    (hardware,) = [section for section in study_page(DEMO).sections if section.name == "hardware"]
    assert "kept no record" in hardware.text[0]
    assert not study_page(DEMO).command


def test_the_answer_of_a_sweep_compares_the_last_points_with_software() -> None:
    answer = study_page(DEMO).answer
    assert "write noise γ = 6" in answer
    assert "accuracy falls to 40.0 % [35.0, 45.0] with no mitigation, from 90.0 % in software" in answer
    assert "ClipFormer, calibrated gives 70.0 % [65.0, 75.0] there" in answer


def perplexity(found: MeasuredPoint, mean: float) -> MeasuredPoint:
    content = found.model_dump(by_alias=True)
    content["accuracy"] |= {"metric": "perplexity", "software": 20.0, "mean": mean, "ci95": [mean - 1, mean + 1]}
    content["accuracy"] |= {"chips": [mean, mean]}
    content["accuracy"].pop("hits")
    return MeasuredPoint.model_validate(content)


def language_model(*means: float) -> StudyResults:
    gamma = "hardware.attention.array.cell.write_noise.gamma"
    points = [perplexity(point(0.5, gamma=float(x), **{gamma: x}), mean) for x, mean in enumerate(means)]
    return study(*points)


def test_of_a_perplexity_less_is_better() -> None:
    page = study_page(language_model(20.5, 30.0, 400.0))
    assert "perplexity rises to 400" in page.answer
    (chart,) = page.charts
    assert chart.y.log
    assert "lower is better" in page.sections[0].tables[0].caption


def test_one_point_and_points_by_words_have_answers() -> None:
    one = study_page(study(point(0.85)))
    assert one.answer == "The simulated hardware reaches accuracy 85.0 % [80.0, 90.0]; software has 90.0 %."
    texts = study_page(study(point(0.8, model__source="a"), point(0.6, model__source="b")))
    assert "“model.source = a” is best with accuracy 80.0 % [75.0, 85.0]" in texts.answer
    assert [chart.name for chart in texts.charts] == ["points"]


def test_costs_are_answered_in_words() -> None:
    one = study_page(costs(cost(life=None))).answer
    assert one == "One pass takes 1 ms and 100 uJ on 20 mm²; no cell wears out."
    two = study_page(costs(cost(), cost(2e-3, 1e-4, life=6e8))).answer
    assert "Latency goes from 1 ms (“projection.array.rows = 1”) to 2 ms" in two
    assert "energy is 100 uJ at all points" in two
    assert "after 9.51 years (“projection.array.rows = 1”) to 19 years" in two


def test_the_answer_leaves_out_the_middle_of_long_names() -> None:
    names = [f"attention in cells with everything that one can do for them, case {number}" for number in (1, 2)]
    found = study_page(study(*(point(0.5 + 0.1 * n, label=name) for n, name in enumerate(names)))).answer
    assert "“attention in cells with everyt … one can do for them, case 2” is best" in found
    assert "“attention in cells with everyt … one can do for them, case 1” worst" in found


def test_a_front_holds_the_points_that_no_other_beats() -> None:
    assert front([(1, 5), (2, 4), (3, 4), (2, 6), (4, 1)]) == {0, 1, 4}
    assert front([(1, 1), (1, 1), (2, 2)]) == {0, 1}
    assert front([]) == set()


def test_accuracy_against_costs_has_a_chart_for_each_cost_that_varies() -> None:
    found = [chart for chart in study_page(both()).charts if chart.name.startswith("front")]
    assert [chart.name for chart in found] == ["front-latency", "front-energy"]
    for chart in found:
        assert len(chart.table.rows) == len(both().points)
        assert all(note for trace in chart.traces for note in trace.notes)


def test_the_question_names_what_is_swept() -> None:
    question = dict(study_page(both()).question)
    assert question["swept: write noise γ"] == "0, 3, 6"
    assert question["points"] == "12"


def test_the_question_cuts_long_values() -> None:
    tables = [{"mean": True, "basis": f"{letter * 300}"} for letter in "ab"]
    page = study_page(study(*(DEMO.points[0].model_copy(update={"set": {"rules.x": table}}) for table in tables)))
    swept = dict(page.question)["swept: rules.x"]
    assert swept.startswith("2 values, from mean True")
    assert len(swept) < 250


def test_the_table_of_products_counts_those_of_each_module_and_point() -> None:
    captures = [
        Capture(crossbars={"x W": 3}, digital=("attn (by rule)", "attn (by rule)")),
        Capture(crossbars={"x W": 3, "Q K": 1}, digital=()),
    ]
    section = ran_section(captures, None)
    assert section is not None
    assert section.tables[0].rows[:3] == (
        ("x W", "crossbars", "3"),
        ("Q K", "crossbars", "0 to 1"),
        ("attn (by rule)", "digital units", "0 to 2"),
    )


def test_hardware_that_is_swept_is_no_setting_of_all_points() -> None:
    settings = (("hardware.base", "nvm_ideal"), ("model.source", "shapes:gpt2"))
    found = costs(cost(), record=record().model_copy(update={"settings": settings}))
    assert dict(study_page(found).question)["hardware"] == "nvm_ideal"
    other = found.points[0].model_copy(update={"set": {"hardware.base": "puma_asplos_2019"}})
    assert "hardware" not in dict(study_page(found.model_copy(update={"points": (other,)})).question)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (ClaimResults(schema=1, papers=()), "is for studies of accuracy and cost"),
        (study(), "has no points"),
    ],
)
def test_documents_without_a_page_are_refused(document: ClaimResults | Requirements, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        study_page(document)


def test_every_origin_and_number_of_the_hardware_is_in_a_table() -> None:
    (hardware,) = [section for section in study_page(both()).sections if section.name == "hardware"]
    assert hardware.folded[0].rows == (("chip.tile_area", "1 mm^2", "assumed", "plain", "plain"),)
    assert [row[0] for row in hardware.tables[0].rows] == ["published", "derived", "assumed"]


def test_a_point_without_k_and_v_in_cells_has_no_noise_to_show() -> None:
    bare = changed(point(0.9), "write_noise", {"projection": None, "key": None, "value": None})
    assert study_page(study(bare)).answer.startswith("The simulated hardware reaches")
