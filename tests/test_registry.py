"""Kinds from other packages: how they are found, and what is told of those that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor

import ohmformer as of
from ohmformer import registry
from ohmformer.cli import main
from ohmformer.dataflow.job import Job
from ohmformer.dataflow.layer_cuts import unit_name
from ohmformer.quantities import Fraction
from ohmformer.report.json_schema import file_schema
from ohmformer.report.library import list_table
from ohmformer.schema import load
from tests.build import array

PLUGIN = '''
from typing import ClassVar, Literal
from ohmformer import GaussianWriteNoise, register
from ohmformer.quantities import Fraction

@register
class Flat(GaussianWriteNoise):
    """Flat from elsewhere."""
    strength: ClassVar[tuple[str, ...]] = ("sigma",)
    kind: Literal["flat"] = "flat"
    sigma: Fraction
    def write_std(self, g, cell):
        return g * 0 + self.sigma * cell.g_max
'''


def cell(**fields: Any) -> of.Cell:
    """An RRAM cell of 0.1 to 10 uS, ideal but for `fields`; what is wrong is told as users see it."""
    return of.Cell(g_min=1e-7, g_max=1e-5, **fields)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Kinds of a test are forgotten after it, and so are entry points."""
    before = {family: set(kinds) for family, kinds in registry._kinds.items()}
    yield
    registry._entry_points.cache_clear()
    for family, kinds in registry._kinds.items():
        for name in [each for each in kinds if each not in before.get(family, set())]:
            del kinds[name]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a module with entry points of a family, as a package manager would."""

    def install(code: str, points: str, family: str = "write_noise") -> None:
        name = f"plugin_{tmp_path.name.strip('_').replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(code)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[ohmformer.{family}]\n{points.format(module=name)}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        registry._entry_points.cache_clear()

    return install


def test_a_file_finds_a_kind_through_its_entry_point(installed: Any, tmp_path: Path) -> None:
    installed(PLUGIN, "flat = {module}:Flat")
    file = tmp_path / "mine.toml"
    file.write_text('[cell]\ng_min = "1 uS"\ng_max = "10 uS"\n[cell.write_noise]\nkind = "flat"\nsigma = 0.1\n')
    found = load(of.Cell, str(file))
    assert found.write_noise.kind == "flat"
    assert of.Cell.model_validate(found.canonical()) == found
    g = torch.full((3,), 5e-6)
    assert torch.allclose(
        of.device.noise.write(g, found, torch.tensor([0.0, 1.0, -9.0])), torch.tensor([5e-6, 6e-6, 0.0]), atol=1e-12
    )
    assert of.replace(found, "write_noise.sigma", 0.2).canonical()["write_noise"] == {"kind": "flat", "sigma": 0.2}
    assert of.replace(found, "write_noise.kind", "uniform").canonical()["write_noise"] == {
        "kind": "uniform",
        "sigma": 0.1,
    }


def test_listing_and_schema_show_kinds_of_entry_points(installed: Any) -> None:
    installed(PLUGIN, "flat = {module}:Flat")
    assert "flat" in list(list_table("write_noise").columns[1].cells)
    definitions = file_schema("cell")["$defs"]
    assert (
        definitions["Cell"]["anyOf"][2]["properties"]["write_noise"]["discriminator"]["mapping"]["flat"]
        == "#/$defs/Flat"
    )
    assert "sigma" in definitions["Flat"]["properties"]


def test_an_unknown_kind_is_told_with_those_of_entry_points(installed: Any) -> None:
    installed(PLUGIN, "flat = {module}:Flat")
    with pytest.raises(
        of.BadInput, match=r"write_noise.kind = 'flut': is not a kind; did you mean 'flat'\? known: flat, "
    ):
        cell(write_noise={"kind": "flut", "sigma": 0.1})
    with pytest.raises(of.BadInput, match=r"write_noise.sigma = -1: must be >= 0"):
        cell(write_noise={"kind": "flat", "sigma": -1})


@pytest.mark.parametrize(
    ("code", "points", "told"),
    [
        ("import nothing_of_this_name", "flat = {module}:Flat", "cannot be loaded .ModuleNotFoundError"),
        ("1 / 0", "flat = {module}:Flat", "cannot be loaded .ZeroDivisionError"),
        ("import sys; sys.exit(0)", "flat = {module}:Flat", "cannot be loaded .SystemExit"),
        (PLUGIN, "flat = {module}:Missing", "cannot be loaded .AttributeError"),
        (PLUGIN.replace("@register", ""), "flat = {module}:Flat", "registers no write_noise of that kind"),
        (PLUGIN.replace('Literal["flat"] = "flat"', 'str = "flat"'), "flat = {module}:Flat", "has no kind"),
    ],
)
def test_an_entry_point_that_fails_is_one_line_and_hinders_nothing_else(
    installed: Any, code: str, points: str, told: str
) -> None:
    installed(code, points)
    with pytest.raises(of.BadInput, match=told) as caught:
        cell(write_noise={"kind": "flat", "sigma": 0.1})
    assert "\n" not in str(caught.value)
    assert cell(write_noise={"kind": "uniform", "sigma": 0.1})
    with pytest.raises(of.BadInput, match="is not a kind; did you mean 'uniform'"):
        cell(write_noise={"kind": "uniforn", "sigma": 0.1})


def test_listing_tells_why_a_kind_of_an_entry_point_is_left_out(
    installed: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("import nothing_of_this_name", "flat = {module}:Flat\nuniform = {module}:Uniform")
    monkeypatch.setattr("sys.argv", ["ohmformer", "list", "write_noise"])
    assert main() in (0, None)
    out, err = capsys.readouterr()
    assert "uniform" in out
    assert "flat" not in out
    assert [line.split(" (")[0] for line in err.splitlines()] == [
        "left out: entry point 'flat' of ohmformer.write_noise",
        "left out: entry point 'uniform' of ohmformer.write_noise",
    ]


def test_a_kind_whose_objects_can_be_changed_is_refused() -> None:
    for option, value in (("frozen", False), ("extra", "allow"), ("strict", False)):

        class Loose(of.GaussianWriteNoise):
            model_config = {option: value}  # noqa: RUF012
            kind: Literal["loose"] = "loose"

            def write_std(self, g: torch.Tensor, cell: of.Cell) -> torch.Tensor:
                return g

        with pytest.raises(of.BadInput, match=rf"register\(Loose\): model_config sets {option}; leave it out"):
            of.register(Loose)


@pytest.mark.parametrize(("family", "kind"), [(of.Dataflow, "LayerSerial"), (of.WriteNoise, "Lognormal")])
def test_a_family_itself_is_no_specification(family: type[Any], kind: str) -> None:
    with pytest.raises(of.BadInput, match=rf"^{family.__name__} is a family of kinds; make one of them: .*{kind}"):
        family(kind="layer_serial")


def test_a_kind_has_a_printable_name() -> None:
    for name in ("", " flat", "flat\n", "\x1b[31mflat"):
        body = {"__annotations__": {"kind": Literal[name]}, "kind": name, "__module__": __name__}
        with pytest.raises(of.BadInput, match="has no kind"):
            of.register(type("Odd", (of.Drift,), body))


def test_what_is_no_kind_cannot_be_registered() -> None:
    class Abstract(of.GaussianWriteNoise):
        kind: Literal["abstract"] = "abstract"

    class Twice(Abstract):
        kind: Literal["uniform"] = "uniform"  # type: ignore[assignment]

        def write_std(self, g: Tensor, cell: Any) -> Tensor:
            return g

    class Weak(Twice):
        strength: ClassVar[tuple[str, ...]] = ("amplitude",)

        kind: Literal["weak"] = "weak"  # type: ignore[assignment]

    with pytest.raises(of.BadInput, match="has no write_std"):
        of.register(Abstract)
    with pytest.raises(of.BadInput, match=r"write_noise has a kind 'uniform' already, ohmformer.device.kinds.Uniform"):
        of.register(Twice)
    with pytest.raises(of.BadInput, match="strength names 'amplitude', which is not a field"):
        of.register(Weak)
    with pytest.raises(
        of.BadInput, match=r"belongs to no family; derive it from one of .*WriteNoise, or .* of docs/extending"
    ):
        of.register(int)  # type: ignore[type-var]


def test_a_class_that_was_not_registered_is_refused_as_a_value() -> None:
    class Unknown(of.GaussianWriteNoise):
        kind: Literal["unknown"] = "unknown"

        def write_std(self, g: Tensor, cell: Any) -> Tensor:
            return g

    with pytest.raises(of.BadInput, match="Unknown is not registered; mark the class with @register"):
        cell(write_noise=Unknown())
    with pytest.raises(of.BadInput, match="write_noise"):
        cell(write_noise=cell().drift)


METHODS = {
    "of another shape": (lambda g: g.sum(), "returns torch.float32 \\[\\]"),
    "of another type": (lambda g: g.double() if g.dtype == torch.float32 else g.float(), "returns torch.float64"),
    "not finite": (lambda g: g / 0, "returns NaN or infinity"),
    "negative": (lambda g: -g - 1, "returns a negative standard deviation|falls as eps rises"),
    "its argument": (lambda g: g.mul_(2), "changes or returns its argument|after_write"),
    "an error": (lambda g: g[99], "raised IndexError"),
    "a number": (lambda g: 0.1, "write_std: returns float"),
}


@pytest.mark.parametrize("what", METHODS)
def test_methods_that_give_something_else_are_told_by_name(what: str) -> None:
    method, told = METHODS[what]

    @of.register
    class Odd(of.GaussianWriteNoise):
        kind: Literal["odd"] = "odd"

        def write_std(self, g: Tensor, cell: Any) -> Tensor:
            return method(g)  # type: ignore[no-any-return, operator]

    with pytest.raises(of.BadInput, match=told) as caught:
        of.array.program(torch.eye(3), array(cell=cell(write_noise={"kind": "odd"})), stream=1)
    assert str(caught.value).startswith("Odd.")


def test_faults_that_are_more_than_all_cells_are_refused() -> None:
    @of.register
    class Many(of.FaultModel):
        kind: Literal["many"] = "many"
        rate: Fraction

        def states(self) -> tuple[tuple[float, float], ...]:
            return (0.5, self.rate), (1.0, self.rate)

    assert cell(faults={"kind": "many", "rate": 0.5}).faults.states()[0] == (0.5, 0.5)
    with pytest.raises(of.BadInput, match=r"probabilities that sum to 1"):
        cell(faults={"kind": "many", "rate": 0.6})


def test_faults_without_a_kind_are_stuck_at_faults() -> None:
    found = cell(faults={"stuck_at_g_min": 0.1})
    assert found.faults.canonical() == {"kind": "stuck_at", "stuck_at_g_min": 0.1, "stuck_at_g_max": 0.0}


JOBS = {
    "nothing": (lambda jobs: [], "shares add up to 0"),
    "one left out": (lambda jobs: jobs[:-1], "shares add up to 0"),
    "one twice": (lambda jobs: [*jobs, jobs[-1]], "shares add up to 2"),
    "a wait for itself": (lambda jobs: [replaced(jobs[0], after=(0,)), *jobs[1:]], "name positions of jobs"),
    "no number": (lambda jobs: [replaced(jobs[0], duration=float("nan")), *jobs[1:]], "duration = nan"),
    "no jobs": (lambda jobs: [1, 2], "is of type int"),
}


def replaced(job: Job, **values: Any) -> Job:
    from dataclasses import replace

    return replace(job, **values)


@pytest.mark.parametrize("what", JOBS)
def test_jobs_of_a_dataflow_are_checked(what: str) -> None:
    change, told = JOBS[what]

    @of.register
    class Own(of.Dataflow):
        kind: Literal["own"] = "own"

        def jobs(self, placement: Any) -> Any:
            layers = enumerate(placement.layers)
            found = [
                Job(n, stage, 0, 0, unit_name(layer, stage), stage.time(layer.tokens), (), 1.0)
                for n, layer in layers
                for stage in layer.all_stages()
            ]
            return change(found)

    work, hardware = of.shapes("bert-base", tokens=16), of.load("xformer_tvlsi_2023")
    with pytest.raises(of.BadInput, match=told) as caught:
        of.simulate(work, hardware, Own())
    assert str(caught.value).startswith("Own.jobs: ")


def test_a_dataflow_with_jobs_of_its_own_has_no_closed_form_but_can_be_explored() -> None:
    from ohmformer.dataflow.closed_form import latency
    from ohmformer.dataflow.jobs import jobs_of

    @of.register
    class Same(of.Dataflow):
        kind: Literal["same"] = "same"

        def jobs(self, placement: Any) -> Any:
            return jobs_of(placement, of.LayerSerial())

    work, hardware = of.shapes("bert-base", tokens=16), of.load("xformer_tvlsi_2023")
    run, serial = of.simulate(work, hardware, Same()), of.simulate(work, hardware)
    assert (run.latency, run.energy) == (serial.latency, serial.energy)
    assert of.explore([(work, hardware, Same())]).latency[0] == run.latency
    with pytest.raises(of.BadInput, match="dataflow 'same' defines its own jobs"):
        latency(run.placement, Same())


@pytest.mark.parametrize("size", [0, -1, 2.5, 10**6])
def test_a_block_that_is_none_is_refused(size: Any) -> None:
    @of.register
    class Blocks(of.Dataflow):
        kind: Literal["blocks"] = "blocks"

        def block_size(self, tokens: int) -> int:
            return size  # type: ignore[no-any-return]

    with pytest.raises(of.BadInput, match=r"Blocks.block_size\(16\): gives"):
        of.simulate(of.shapes("bert-base", tokens=16), of.load("xformer_tvlsi_2023"), Blocks())


@pytest.mark.parametrize("price", [None, (float("nan"), {}), (1.0, {"unit": -1.0})])
def test_an_engine_without_a_price_that_can_be_added_is_refused(price: Any) -> None:
    @of.register
    class Unpriced(of.ExactEngine):
        kind: Literal["unpriced"] = "unpriced"

        def price(self, work: of.Work) -> of.Price | None:
            return None if price is None else of.Price(*price)

    hardware = of.load("xformer_tvlsi_2023")
    for role in ("attention.key", "attention.value"):
        hardware = of.replace(hardware, role, {"kind": "unpriced"})
    with pytest.raises(of.BadInput, match=r"hardware.attention.key.kind = 'unpriced': (has no price|its price is)"):
        of.simulate(of.shapes("bert-base", tokens=16), hardware)


TAKEN = PLUGIN.replace('"flat"', '"uniform"')


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (TAKEN, r"write_noise has a kind 'uniform' already, ohmformer.device.kinds.Uniform\w*; choose another name"),
        (PLUGIN, r"write_noise has a kind 'uniform' already, ohmformer.device.kinds.Uniform\w*; rename the kind of"),
        ("import nothing_of_this_name", "cannot be loaded .ModuleNotFoundError"),
    ],
)
def test_an_entry_point_whose_name_is_taken_is_refused_where_the_name_is_used(
    installed: Any, code: str, told: str
) -> None:
    installed(code, "uniform = {module}:Flat")
    for _ in range(2):
        with pytest.raises(
            of.BadInput, match=rf"entry point 'uniform' of ohmformer.write_noise .*: .*{told}"
        ) as caught:
            cell(write_noise={"kind": "uniform", "sigma": 0.1})
        assert "\n" not in str(caught.value)
    assert cell(write_noise={"kind": "proportional", "sigma": 0.1})


def test_two_packages_with_the_same_kind_are_refused(installed: Any, tmp_path: Path) -> None:
    installed(PLUGIN, "flat = {module}:Flat")
    (tmp_path / "second_package.py").write_text(PLUGIN)
    info = tmp_path / "second_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: second_package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ohmformer.write_noise]\nflat = second_package:Flat\n")
    registry._entry_points.cache_clear()
    with pytest.raises(of.BadInput, match=r"entry point 'flat' .*: write_noise has a kind 'flat' already, \w+\.Flat"):
        cell(write_noise={"kind": "flat", "sigma": 0.1})


def test_an_entry_point_of_a_class_that_is_registered_already_is_no_conflict(installed: Any) -> None:
    installed("from ohmformer.device.kinds import Uniform", "uniform = {module}:Uniform")
    assert cell(write_noise={"kind": "uniform", "sigma": 0.1})


def test_what_an_import_prints_goes_to_standard_error(installed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    installed(f"print('hello')\n{PLUGIN}", "flat = {module}:Flat")
    assert cell(write_noise={"kind": "flat", "sigma": 0.1})
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "hello\n")
