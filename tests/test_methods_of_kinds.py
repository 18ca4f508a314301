"""Methods of kinds from outside the package that fail, or return something else, end in one line."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch

import ohmformer as of
from ohmformer.array.prices.array_laws import Ladder, LineLaw
from ohmformer.array.prices.converter_laws import Sar
from ohmformer.cost.scaled_array_prices import priced
from ohmformer.dataflow.block_jobs import block_jobs
from ohmformer.dataflow.job import Job
from ohmformer.errors import BadInput, shown
from ohmformer.nn.calibration import recipes
from ohmformer.registry import _kinds, called, register
from ohmformer.report.array_prices import converter_table
from ohmformer.tasks.metric_kinds import METRICS
from ohmformer.tasks.scoring import scores
from tests.study.small import model as small_model
from tests.study.small import task as small_task


@pytest.fixture(autouse=True)
def _registered_kinds_are_forgotten() -> Any:
    before = {family: dict(kinds) for family, kinds in _kinds.items()}
    yield
    for family, kinds in before.items():
        _kinds[family].clear()
        _kinds[family].update(kinds)


def test_the_error_of_an_own_kind_stays_as_it_is() -> None:
    with pytest.raises(AttributeError):
        called(of.LayerSerial(), "no_such_method")


def dataflow(**methods: Any) -> Any:
    body = {
        "__annotations__": {"kind": "Literal['own_flow']"}, "kind": "own_flow", "__module__": __name__, **methods,
    }  # fmt: skip
    return register(type("OwnFlow", (of.Dataflow,), body))()


def fails(*_: Any, **__: Any) -> Any:
    return 1 // 0


@pytest.mark.parametrize("method", ["block_size", "has_barrier", "overlaps", "kv_sets", "softmax_sets", "jobs"])
def test_a_dataflow_whose_method_fails(method: str) -> None:
    work, hardware = of.shapes("bert-base", tokens=16), of.load("nvm_ideal")
    with pytest.raises(BadInput, match=rf"OwnFlow\.{method}: raised ZeroDivisionError: .*; correct the method"):
        of.simulate(work, hardware, dataflow(**{method: fails}))


def test_blocks_of_another_type() -> None:
    with pytest.raises(BadInput, match=r"OwnFlow\.block_size\(8\): gives True; return a whole number"):
        dataflow(block_size=lambda self, tokens: True).size_of_block(8)


@pytest.mark.parametrize(("method", "value", "remedy"), [
    ("has_barrier", None, "return True or False"), ("overlaps", "yes", "return True or False"),
    ("kv_sets", 3, "return 1 or 2"), ("kv_sets", True, "return 1 or 2"),
    ("softmax_sets", "both", "return 'one' or 'per_layer'"), ("softmax_sets", [], "return 'one' or 'per_layer'"),
])  # fmt: skip
def test_a_dataflow_whose_method_gives_something_else(method: str, value: Any, remedy: str) -> None:
    points = [(of.shapes("bert-base", tokens=16), of.load("nvm_ideal"), dataflow(**{method: lambda self: value}))]
    for price in (lambda: of.simulate(*points[0]), lambda: of.explore(points)):
        with pytest.raises(BadInput, match=rf"OwnFlow\.{method}\(\): gives {re.escape(shown(value))}; {remedy}"):
            price()


@pytest.mark.parametrize("jobs", [5, "jobs", {1: 2}])
def test_jobs_that_are_no_list(jobs: Any) -> None:
    work, hardware = of.shapes("bert-base", tokens=16), of.load("nvm_ideal")
    with pytest.raises(BadInput, match=r"OwnFlow\.jobs: returns .*; return a list of ohmformer.dataflow.job.Job"):
        of.simulate(work, hardware, dataflow(jobs=lambda self, placement: jobs))


@pytest.mark.parametrize(("field", "value"), [
    ("layer", 0.0), ("stage", "Q K"), ("unit", 3), ("duration", "1 us"), ("share", None), ("lag", True),
    ("after", 0), ("after", ("first",)), ("also", "softmax"), ("also", (1,)),
])  # fmt: skip
def test_a_job_with_a_value_of_another_type(field: str, value: Any) -> None:
    def jobs(self: Any, placement: Any) -> list[Job]:
        return [replace(block_jobs(placement, of.LayerSerial())[0], **{field: value})]

    with pytest.raises(BadInput, match=rf"OwnFlow\.jobs: number 0: {field} = .*: is of another type; give (a|the) "):
        of.simulate(of.shapes("bert-base", tokens=16), of.load("nvm_ideal"), dataflow(jobs=jobs))


def law(base: Any, **methods: Any) -> dict[str, str]:
    """The table that chooses a law whose methods are these."""
    body = {"__annotations__": {"kind": "Literal['own_law']"}, "kind": "own_law", "__module__": __name__, **methods}
    register(type("OwnLaw", (base,), body))
    return {"kind": "own_law"}


LAWS = [
    ("law", "size", 64, LineLaw, ("read_energy_ratio", "time", "write_energy_ratio", "area_ratio",
                                  "driver_energy_ratio", "driver_area_ratio", "adder_area_ratio"), "return a number"),
    ("dac_law", "inputs", {"kind": "amplitude"}, Ladder, ("units",), "return a number"),
    ("adc_law", "adc.bits", 5, Sar, ("figures", "scaled"), "return an ohmformer.Converter of numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "changed", "value", "base", "method", "remedy"), [
    (*rest, method, remedy) for *rest, methods, remedy in LAWS for method in methods
])  # fmt: skip
def test_a_law_of_prices_that_fails_or_gives_something_else(
    where: str, changed: str, value: Any, base: Any, method: str, remedy: str
) -> None:
    array = of.load_crossbar("isaac_2016" if where == "dac_law" else "puma_2019")

    def unusable(*_: Any) -> Any:
        raise KeyError("rows")

    for function, told in ((unusable, r"raised KeyError: .*; correct the method"), (lambda *_: "1 pJ", remedy)):
        table = law(base, **{method: function})
        priced_array = of.replace(of.replace(array, f"cost.{where}", table), changed, value)
        with pytest.raises(BadInput, match=rf"OwnLaw\.{method}: .*{told}"):
            priced(priced_array, "projection")


def test_the_reason_of_a_law_why_no_array_is_that_fast_is_told() -> None:
    def time(*_: Any) -> float:
        raise ValueError("is too short; correct it")

    array = of.replace(of.load_crossbar("puma_2019"), "cost.law", law(LineLaw, time=time))
    with pytest.raises(BadInput, match=r"^hardware.projection.array.cost.read_time = .* s: is too short; correct it$"):
        priced(of.replace(array, "size", 64), "projection")


def test_a_converter_law_without_figures_is_left_out_of_the_table() -> None:
    law(Sar, figures=fails)
    table = converter_table(of.load_crossbar("puma_2019"), "projection", "")
    names = list(table.columns[0].cells)
    assert "sar" in names
    assert "own_law" not in names


def test_a_fault_model_whose_states_fail() -> None:
    @register
    class OwnFaults(of.FaultModel):
        kind: Literal["own_faults"] = "own_faults"
        levels: int = 2

        def states(self) -> Any:
            return ((1 / (self.levels - 1), 0.1),) if self.levels else None

    cell = of.load_cell("generic")
    assert of.replace(cell, "faults", {"kind": "own_faults"}).faults.levels == 2
    with pytest.raises(BadInput, match=r"OwnFaults\.states: raised ZeroDivisionError"):
        of.replace(cell, "faults", {"kind": "own_faults", "levels": 1})
    with pytest.raises(BadInput, match=r"OwnFaults\.states: returns None; return pairs of place and probability"):
        of.replace(cell, "faults", {"kind": "own_faults", "levels": 0})


PRICES = [
    (fails, r"price: raised ZeroDivisionError"),
    (lambda *_: (1.0, {"x": 1.0}), r"price: returns \(1.0, .*\); return an ohmformer.Price or None"),
    (lambda *_: of.Price("1 s", {"x": 1.0}), r"price: returns Price\(seconds='1 s'"),  # type: ignore[arg-type]
    (lambda *_: of.Price(1.0, {3: 1.0}), r"price: returns Price\(seconds=1.0, energy=\{3"),  # type: ignore[dict-item]
    (lambda *_: of.Price(-1.0, {}), "give seconds and joules of 0 or more"),
]
AREAS = [(fails, "raised ZeroDivisionError"), *((lambda _, area=area: area, "return square meters") for area in (
    None, -1.0, float("nan"), "1 mm^2"
))]  # fmt: skip


@pytest.mark.parametrize(("price", "area", "message"), [
    *((price, None, message) for price, message in PRICES), *((None, area, message) for area, message in AREAS)
])  # fmt: skip
def test_an_engine_without_usable_figures(price: Any, area: Any, message: str) -> None:
    body = {
        "__annotations__": {"kind": "Literal['own_engine']"}, "kind": "own_engine", "__module__": __name__,
        "price": price or (lambda *_: of.Price(1e-6, {"x": 1e-9})), "own_area": area or (lambda _: 1e-6),
    }  # fmt: skip
    register(type("OwnEngine", (of.ExactEngine,), body))
    hardware = of.load("xformer_tvlsi_2023")
    for role in ("attention.key", "attention.value"):
        hardware = of.replace(hardware, role, {"kind": "own_engine"})
    with pytest.raises(BadInput, match=message):
        of.simulate(of.shapes("bert-base", tokens=16), hardware)


@pytest.mark.parametrize(
    ("write_std", "message"),
    [
        (fails, r"OwnNoise\.\w+: raised ZeroDivisionError"),
        (lambda *_: None, r"OwnNoise\.write_std: returns NoneType for torch\.float32 .*; return a tensor of the same"),
        (lambda self, g, cell: -g, r"OwnNoise\.write_std: returns a negative standard deviation; clamp it to 0"),
        (lambda self, g, cell: g * float("nan"), r"OwnNoise\.write_std: returns NaN or infinity between"),
        (lambda *_: 1e-6, r"OwnNoise\.write_std: returns float"),
    ],
)
def test_a_write_noise_is_named_before_a_model_runs_on_it(write_std: Any, message: str) -> None:
    body = {
        "__annotations__": {"kind": "Literal['own_noise']"}, "kind": "own_noise", "__module__": __name__,
        "write_std": write_std,
    }  # fmt: skip
    register(type("OwnNoise", (of.GaussianWriteNoise,), body))
    hardware = of.replace(of.load("nvm_ideal"), "projection.array.cell.write_noise", {"kind": "own_noise"})
    with pytest.raises(BadInput, match=message):
        of.convert(torch.nn.Linear(4, 4), hardware, sample=torch.ones(2, 4), level="noise")(torch.ones(2, 4))


def leaves(*_: Any, **__: Any) -> Any:
    raise SystemExit(0)


def metric(**methods: Any) -> str:
    body = {
        "__annotations__": {"kind": "Literal['own_metric']"}, "kind": "own_metric", "__module__": __name__,
        "title": "own", "scores": lambda self, model, task, batch: np.ones(len(task)), **methods,
    }  # fmt: skip
    register(type("OwnMetric", (of.Metric,), body))
    return "own_metric"


@pytest.mark.parametrize("method", [fails, leaves])
def test_a_metric_that_fails(method: Any) -> None:
    data = dataclasses.replace(small_task(), metric=metric(summarize=method, scores=method))
    with pytest.raises(BadInput, match=r"^OwnMetric\.summarize: raised (ZeroDivisionError|SystemExit): "):
        data.summarize(np.ones((2, len(data))))
    with pytest.raises(BadInput, match=r"^OwnMetric\.scores: raised (ZeroDivisionError|SystemExit): "):
        scores(small_model().eval(), data)


def test_a_metric_whose_summary_is_none() -> None:
    data = dataclasses.replace(small_task(), metric=metric(summarize=lambda *_: 0.5))
    with pytest.raises(BadInput, match=r"^OwnMetric\.summarize: returns a float, 0\.5; return an ohmformer\.Summary"):
        data.summarize(np.ones((2, len(data))))


@pytest.mark.parametrize(
    ("show", "message"), [(fails, "raised ZeroDivisionError"), (lambda *_: 0.5, "returns a float")]
)
def test_a_metric_that_cannot_show_a_value(show: Any, message: str) -> None:
    kind = METRICS[metric(show=show)]
    with pytest.raises(BadInput, match=rf"^OwnMetric\.show: {message}"):
        kind.text(0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("title", 5),
        *(("factor", value) for value in (0, -1.0, "x", float("nan"), True)),
        *(("digits", value) for value in ("x", -1, 1.5)),
        ("unit", 3),
        ("better", "up"),
        ("counts", "nope"),
        ("labels", "words"),
        ("compares_features", 1),
        *(("limits", value) for value in (3, (1, 0), (0, float("inf")), ("a", "b"))),
        *(("sources", value) for value in ("csv", ["csv"], (1,))),
    ],
)
def test_a_metric_with_a_class_variable_of_another_type(name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=rf"^register\(OwnMetric\): {name} = .*; give [^\n]+$"):
        metric(**{"__annotations__": {"kind": "Literal['own_metric']", name: ClassVar}, name: value})


def test_a_metric_with_a_required_field_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^register\(OwnMetric\): margin has no default; .* give every field one$"):
        metric(__annotations__={"kind": "Literal['own_metric']", "margin": float})


def test_a_metric_may_read_numbers_or_no_labels() -> None:
    """Its class says which labels it reads, so an own correlation of pairs is one class, like that of the package."""
    numbers, pairs = torch.tensor([0.5, 0.25]), torch.tensor([[0, 1], [2, 3]])
    kind = metric(labels="numbers", **_annotated("labels"))
    assert dataclasses.replace(small_task(), labels=numbers, pairs=pairs, metric=kind).labels is numbers
    with pytest.raises(BadInput, match="labels must be one finite similarity per pair"):
        dataclasses.replace(small_task(), labels=numbers * float("nan"), pairs=pairs, metric=kind)
    kind = metric(labels="none", **_annotated("labels"))
    assert dataclasses.replace(small_task(), labels=-small_task().labels - 1, metric=kind)


def _annotated(name: str) -> dict[str, Any]:
    return {"__annotations__": {"kind": "Literal['own_metric']", name: ClassVar}}


@pytest.mark.parametrize("method", [fails, leaves])
def test_a_recipe_that_fails(method: Any) -> None:
    body = {"__annotations__": {"kind": "Literal['own']"}, "kind": "own", "__module__": __name__, "set_up": method}
    register(type("OwnRecipe", (recipes.Recipe,), body))
    inputs = small_task().inputs[:4]
    model = of.convert(small_model().eval(), of.load("clipformer_tcad_2024"), sample=inputs, level="noise")
    with pytest.raises(BadInput, match=r"^OwnRecipe\.set_up: raised (ZeroDivisionError|SystemExit): "):
        of.calibrate(model, inputs, remedy=["none", "own"])
