"""Tables of costs: the assumptions below them name the points that they belong to."""

import pytest
from rich.table import Table

from ohmformer.report.cost_table import cost_tables
from ohmformer.report.serving_table import serving_tables
from ohmformer.study.cost import make_costs, read_costs, study_costs
from ohmformer.study.serving import study_served


def test_lifetimes_that_differ_name_their_points() -> None:
    table = cost_tables(study_costs(read_costs("bert_base"))).renderables[0]
    assert isinstance(table, Table)
    caption = str(table.caption)
    assert caption.count("lifetime of '") == 3
    assert "lifetime of 'layer serial': endurance" in caption


@pytest.mark.parametrize(
    ("path", "values", "lines"),
    [
        ("cost.rate", [f"{number} Hz" for number in range(1, 21)], 1),
        ("hardware.attention.array.cell.endurance", [number * 1e9 for number in range(1, 21)], 13),
        ("cost.spare", [number / 100 for number in range(1, 21)], 1),
    ],
)
def test_a_sweep_has_a_few_lines_on_its_lifetimes(path: str, values: list[float | str], lines: int) -> None:
    study = {
        "name": "many",
        "model": {"source": "shapes:bert-base", "seq_len": 64},
        "hardware": {"base": "xformer_tvlsi_2023"},
        "sweep": {path: values},
    }
    table = cost_tables(study_costs(make_costs(study))).renderables[0]
    assert isinstance(table, Table)
    found = [line for line in str(table.caption).splitlines() if line.startswith("lifetime")]
    assert len(found) == lines
    assert max(map(len, found)) < 600
    if path == "cost.rate":
        assert "at 1 to 20 passes per second" in found[0]


def test_a_single_point_needs_no_name() -> None:
    study = read_costs("bert_base", ['dataflow={ kind = "layer_serial" }'])
    table = cost_tables(study_costs(study)).renderables[0]
    assert isinstance(table, Table)
    assert "\nlifetime: endurance" in str(table.caption)


def test_one_request_is_no_plural() -> None:
    tables = serving_tables(study_served(read_costs("gpt2_prompt", ["model.generate=2"]))).renderables
    titles = [str(table.title) for table in tables if isinstance(table, Table)]
    assert "1 request: prompt 512, 2 generated" in titles
