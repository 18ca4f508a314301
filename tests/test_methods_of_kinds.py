"""Methods of kinds from outside the package that fail, or return something else, end in one line."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

import ohmformer as of
from ohmformer.errors import BadInput
from ohmformer.registry import _kinds, called, register


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


@pytest.mark.parametrize("method", ["block_size", "joins", "jobs"])
def test_a_dataflow_whose_method_fails(method: str) -> None:
    work, hardware = of.shapes("bert-base", tokens=16), of.load("nvm_ideal")
    with pytest.raises(BadInput, match=rf"OwnFlow\.{method}: raised ZeroDivisionError: .*; correct the method"):
        of.simulate(work, hardware, dataflow(**{method: fails}))


def test_blocks_of_another_type() -> None:
    with pytest.raises(BadInput, match=r"OwnFlow\.block_size\(8\): gives True; return a whole number"):
        dataflow(block_size=lambda self, tokens: True).size_of_block(8)


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
        (lambda *_: None, r"OwnNoise\.\w+: raised TypeError"),
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
