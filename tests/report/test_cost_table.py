"""Tables of costs: the assumptions below them name the points that they belong to."""

from rich.table import Table

from ohmformer.report.cost_table import cost_tables
from ohmformer.report.serving_table import serving_tables
from ohmformer.study.cost import read_costs, study_costs
from ohmformer.study.serving import study_served


def test_lifetimes_that_differ_name_their_points() -> None:
    table = cost_tables(study_costs(read_costs("bert_base"))).renderables[0]
    assert isinstance(table, Table)
    caption = str(table.caption)
    assert caption.count("lifetime of '") == 3
    assert "lifetime of 'layer serial': endurance" in caption


def test_a_single_point_needs_no_name() -> None:
    study = read_costs("bert_base", ['dataflow={ kind = "layer_serial" }'])
    table = cost_tables(study_costs(study)).renderables[0]
    assert isinstance(table, Table)
    assert "\nlifetime: endurance" in str(table.caption)


def test_one_request_is_no_plural() -> None:
    tables = serving_tables(study_served(read_costs("gpt2_prompt", ["model.generate=2"]))).renderables
    titles = [str(table.title) for table in tables if isinstance(table, Table)]
    assert "1 request: prompt 512, 2 generated" in titles
