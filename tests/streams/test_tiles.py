"""Tiles are used on Linux alone, by CPUs that have them."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest

from ohmformer.streams import tiles
from tests.gpu.kernels import needs_numba


@pytest.fixture(autouse=True)
def asks_anew() -> Iterator[None]:
    tiles.has_tiles.cache_clear()
    yield
    tiles.has_tiles.cache_clear()


@pytest.mark.parametrize("system", [("Darwin", "arm64"), ("Windows", "AMD64"), ("Linux", "aarch64")])
def test_other_systems_have_no_tiles(system: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: system[0])
    monkeypatch.setattr(platform, "machine", lambda: system[1])
    assert not tiles.has_tiles()


@needs_numba
def test_a_cpu_without_them_has_no_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    from llvmlite import binding  # type: ignore[import-untyped]

    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: {"avx512f": True, "amx-tile": True})
    assert not tiles.has_tiles()
