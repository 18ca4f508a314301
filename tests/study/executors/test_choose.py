"""`--cluster` names workers, and starts none."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from ohmformer.errors import BadInput
from ohmformer.study.executors import remote
from ohmformer.study.executors.choose import chosen_workers
from ohmformer.study.executors.dask_workers import DaskWorkers
from ohmformer.study.executors.local import LocalWorkers
from ohmformer.study.executors.ray_workers import RayWorkers
from ohmformer.study.executors.worker import default_workers


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "find_spec", lambda name: object())


@pytest.mark.usefixtures("installed")
def test_each_value_has_its_workers() -> None:
    here = chosen_workers(None, None)
    assert isinstance(here, LocalWorkers)
    assert here.count == default_workers()
    for value, count, kind, address in (
        ("local", None, DaskWorkers, None),
        ("tcp://10.0.0.7:8786", 3, DaskWorkers, "tcp://10.0.0.7:8786"),
        ("tls://[fe80::1]:8786", None, DaskWorkers, "tls://[fe80::1]:8786"),
        ("ray", 2, RayWorkers, None),
    ):
        found: Any = chosen_workers(value, count)
        assert type(found) is kind
        assert found.count == count
        assert getattr(found, "address", None) == address
        found.close()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("value", ["", "Ray", "dask", "host:8786", "tcp://host", "http://host:1", "tcp://a:1\x1b[2J"])
def test_other_values_are_refused_in_one_line(value: str) -> None:
    with pytest.raises(BadInput, match=r"^--cluster '.*': must be local, ray or the address of a Dask scheduler") as no:
        chosen_workers(value, None)
    assert str(no.value).isprintable()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("cluster", [None, "local", "ray", "tcp://host:1"])
@pytest.mark.parametrize("count", [0, 1025])
def test_wrong_counts_are_refused(cluster: str | None, count: int) -> None:
    with pytest.raises(BadInput, match=rf"workers = {count}: must be"):
        chosen_workers(cluster, count)


@pytest.mark.parametrize(
    ("value", "module", "extra"),
    [("local", "distributed", "cluster"), ("tcp://host:8786", "distributed", "cluster"), ("ray", "ray", "ray")],
)
def test_a_missing_package_is_one_line_with_its_extra(
    value: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(remote, "find_spec", lambda name: None if name == module else real(name))
    with pytest.raises(BadInput) as refused:
        chosen_workers(value, None)
    assert str(refused.value) == f"--cluster {value}: needs the package {module}; pip install 'ohmformer[{extra}]'"
