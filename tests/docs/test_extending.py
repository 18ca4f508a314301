"""The page on adding kinds runs as it stands, section by section, and what it says of each family holds."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import ohmformer as of
from ohmformer import registry
from ohmformer.device import write_verify
from ohmformer.report.library import FAMILIES
from ohmformer.study.read_study import accuracy_half, cost_half, make_study, make_whole
from ohmformer.study.results.key import Identity, code_from_outside, point_keys
from tests.study.small import document

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
CODE = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The module that the page's code makes, once; its kinds are forgotten afterward."""
    file = tmp_path_factory.mktemp("page") / "extending_page.py"
    file.write_text(CODE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("extending_page", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["extending_page"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["extending_page"]
    for kinds in registry._kinds.values():
        for name in [name for name, each in kinds.items() if each.__module__ == "extending_page"]:
            del kinds[name]


def kind_classes(page: ModuleType) -> dict[str, type[Any]]:
    return {
        name: each for name, each in vars(page).items() if isinstance(each, type) and each.__module__ == page.__name__
    }


def test_the_code_of_the_page_runs_and_adds_a_kind_to_every_family(page: ModuleType) -> None:
    added = {
        family
        for each in kind_classes(page).values()
        for family in (root.family for root in registry._families_of(each))
    }
    assert added == set(FAMILIES)
    assert all(f"`{family}`" in PAGE for family in FAMILIES)


def test_the_study_of_the_page_names_kinds_of_the_page(page: ModuleType) -> None:
    (text,) = (text for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "[sweep]" in text)
    study = make_whole(tomllib.loads(text))
    measured, priced = accuracy_half(study), cost_half(study)
    assert len(measured.points) == len(priced.points) == 3
    cells = [point.settings.hardware.attention.key.array.cell for point in measured.points]
    assert [cell.write_noise for cell in cells] == [page.MidRange(sigma=sigma) for sigma in (0.02, 0.05, 0.1)]
    assert {type(cell.drift) for cell in cells} == {page.Relaxation}
    assert priced.points[0].settings.dataflow == page.EqualBlocks(blocks=2)


def test_keys_hold_the_code_of_kinds_from_outside(page: ModuleType) -> None:
    cell = of.replace(of.load_cell("rram_puma_2019"), "write_noise", {"kind": "mid_range", "sigma": 0.2})
    assert list(registry.outside(cell)) == [page.MidRange]
    assert list(registry.outside(of.load_cell("rram_puma_2019"))) == []
    assert cell.canonical()["write_noise"] == {"kind": "mid_range", "sigma": 0.2}
    before = registry.code_digest(page.MidRange)
    file = Path(str(page.__file__))
    file.write_text(CODE + "\n", encoding="utf-8")
    assert registry.code_digest(page.MidRange) != before
    file.write_text(CODE, encoding="utf-8")
    assert registry.code_digest(page.MidRange) == before


def test_a_study_with_kinds_from_outside_has_another_key_when_their_code_changes(page: ModuleType) -> None:
    """Both the kind in the hardware and the metric count; a study without such kinds keeps its key."""
    noise = {"kind": "mid_range", "sigma": 0.2}
    role = "hardware.attention.array.cell.write_noise"
    settings = [
        make_study(document(sweep={path: [value] for path, value in changes.items()})).points[0].settings
        for changes in ({}, {role: noise}, {"task.metric": "confidence"})
    ]
    kinds = [set(code_from_outside(each).get("kinds", {})) for each in settings]
    assert kinds == [set(), {"extending_page.MidRange"}, {"extending_page.Confidence"}]
    here, file = Identity(model="m", task="t"), Path(str(page.__file__))
    before = [point_keys(each, here).key for each in settings]
    file.write_text(CODE + "\n", encoding="utf-8")
    after = [point_keys(each, here).key for each in settings]
    file.write_text(CODE, encoding="utf-8")
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, False]


@pytest.mark.parametrize("ceiling", [None, 1.0])
def test_verified_writes_of_the_gaussian_example_follow_from_its_deviation(
    page: ModuleType, ceiling: float | None
) -> None:
    """Mean and variance after up to four writes, against the draws that the inverse of their distribution gives."""
    cell = of.replace(of.load_cell("rram_puma_2019"), "write_noise", {"kind": "mid_range", "sigma": 0.5})
    if ceiling:
        cell = of.replace(cell, "g_ceiling", ceiling * cell.g_max)
    g = torch.linspace(cell.g_min, cell.g_max, 7, dtype=torch.float64)
    eps = torch.special.ndtri((torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000)[:, None].repeat(1, 7)
    found = of.device.noise.write(g.expand_as(eps), cell, write_verify.verified_eps(eps, g, cell, 0.05, 4)) - g
    mean, variance = write_verify.moments(g, cell, 0.05, 4)
    span = cell.g_max - cell.g_min
    assert torch.allclose(found.mean(0) / span, mean / span, atol=1e-4)
    assert torch.allclose(found.var(0) / span**2, variance / span**2, atol=1e-4)


def test_the_gaussian_example_has_unbiased_codes_and_is_drawn_as_one_normal(page: ModuleType) -> None:
    from ohmformer.array.gaussian_writes.one_number import writable, write_normal

    array = of.replace(of.load_crossbar("clipformer_2024"), "cell.write_noise", {"kind": "mid_range", "sigma": 0.1})
    assert len(of.array.unbiased_codes(array)) > array.max_code
    assert writable(array)
    codes = torch.full((400, 400), 100.0)
    one = write_normal(codes, array, stream=1).values
    many = of.array.write_folded(codes, array, stream=2, read_noise=False).values
    assert abs(float(one.mean() / many.mean()) - 1) < 5e-3
    assert abs(float(one.std() / many.std()) - 1) < 2e-2


def test_what_lacks_a_closed_form_is_refused_by_name(page: ModuleType) -> None:
    array = of.replace(of.load_crossbar("clipformer_2024"), "cell.write_noise", {"kind": "laplace", "sigma": 0.05})
    with pytest.raises(of.BadInput, match=r"write noise 'laplace' .* give Laplace `moments`"):
        of.array.held_moments(array)
    with pytest.raises(of.BadInput, match=r"write_verify: write noise 'laplace' .* `eps_of_error` and `parts`"):
        of.replace(array, "write_verify", {"writes": 3, "tolerance": 0.1})
