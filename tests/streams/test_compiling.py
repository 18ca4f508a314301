"""Loops compile where their cache cannot be kept, and anew when a file that they call has changed."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from ohmformer.errors import BadInput
from ohmformer.streams import SampleStreams, Stream, compiling
from tests.gpu.kernels import needs_numba

COMPILED = Stream(7, kernels="compiled")


@needs_numba
def test_without_a_place_for_the_cache_loops_are_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    njit, asked = numba.njit, []

    def without_place(*arguments: Any, **options: Any) -> Any:
        asked.append(options.get("cache", False))
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*arguments, **options)

    monkeypatch.setattr(numba, "njit", without_place)

    def twice(x):  # type: ignore[no-untyped-def]
        return 2 * x

    loop = compiling.compiled("int64(int64)")(twice)
    assert loop(21) == 42
    assert asked[:2] == [True, False]  # numba asks for more, to compile what the loop needs


@needs_numba
def test_the_cache_of_a_loop_is_that_of_all_files_that_it_may_call(monkeypatch: pytest.MonkeyPatch) -> None:
    from ohmformer.streams import philox_compiled

    name = philox_compiled.fill.py_func.__qualname__
    assert name == f"fill_{compiling.sources_digest()}"
    monkeypatch.setattr(compiling, "FILES", "philox_compiled.py")
    compiling.sources_digest.cache_clear()
    assert compiling.sources_digest() not in name
    compiling.sources_digest.cache_clear()


@needs_numba
def test_threads_change_no_bit() -> None:
    like, before = torch.empty(0), torch.get_num_threads()
    streams = [SampleStreams((COMPILED.child(n), COMPILED.child(n, "b"))) for n in range(8)]
    expected = [stream.normal(2, 3, 5000, like=like) for stream in streams]
    try:
        torch.set_num_threads(2)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda stream: stream.normal(2, 3, 5000, like=like), streams * 3))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found, expected * 3, strict=True))


@pytest.mark.parametrize("installed", [True, False])
def test_compiled_kernels_need_numba(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr(compiling, "has_numba", lambda: installed)
    compiling.check_kernels("torch", "kernels")
    if installed:
        return compiling.check_kernels("compiled", "kernels")
    with pytest.raises(BadInput, match=r"^kernels = 'compiled': needs numba, which is not installed; run: pip install"):
        compiling.check_kernels("compiled", "kernels")
