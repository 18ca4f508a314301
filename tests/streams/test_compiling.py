"""Loops compile where their cache cannot be kept, and anew when a file that they call has changed."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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


def kept_loop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A function that compiles a loop, as each process does, with its cache in a folder."""
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder))

    def compile_loop() -> Any:
        def twice(x):  # type: ignore[no-untyped-def]
            return 2 * x

        twice.__qualname__ = "twice"  # that of a function of a module
        return compiling.compiled("int64(int64)")(twice)

    return compile_loop


@needs_numba
@pytest.mark.parametrize("content", [b"", b"\x80cut", b"garbage"])
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_cache_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, content: bytes
) -> None:
    compile_loop = kept_loop(tmp_path, monkeypatch)
    assert compile_loop()(21) == 42
    for file in tmp_path.rglob(f"*.{suffix}"):
        file.write_bytes(content)
    with pytest.warns(compiling.UnusableCache, match=r"cannot be kept there or read .* remove the files") as told:
        assert compile_loop()(21) == 42
    assert str(tmp_path) in str(told[0].message)
    assert "\n" not in str(told[0].message)


@needs_numba
def test_a_full_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    with pytest.warns(compiling.UnusableCache, match=r"No space left on device.* make room there"):
        assert kept_loop(tmp_path, monkeypatch)()(21) == 42


@needs_numba
def test_a_folder_that_cannot_be_made_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert kept_loop(tmp_path / "file" / "below", monkeypatch)()(21) == 42


@needs_numba
def test_only_loops_that_nothing_has_compiled_are_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_loop, told = kept_loop(tmp_path, monkeypatch), list[str]()
    monkeypatch.setattr(compiling, "import_module", lambda _: compile_loop())
    for _ in range(2):
        compiling.load_loops(lambda: told.append("now"))
        assert told == ["now"]
    compile_loop()
    assert told == ["now"]


@needs_numba
def test_all_files_with_loops_are_loaded() -> None:
    compiling.load_loops(lambda: None)
    assert {"philox_compiled", "cell_writes_compiled", "reads_compiled", "input_codes_compiled"} <= {
        name.rpartition(".")[2] for name in sys.modules if name.startswith("ohmformer.")
    }


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
