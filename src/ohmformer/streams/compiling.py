"""How loops over numbers are compiled for the CPU with numba, where it is installed and asked for.

The same operations give the same bits for every size of a tensor: nothing is reordered, and a product and a sum are
rounded together only where a loop says so (`fused`).
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import sys
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohmformer.errors import BadInput

if TYPE_CHECKING:
    from ohmformer.streams.backends import Kernels

PACKAGE = Path(__file__).parents[1]
FILES = "*_compiled.py"
"""Names of the files that hold compiled loops; their imports compile them, or read what an earlier one has compiled."""
AMX_FILES = "*_amx.py"
"""The same for loops that need the matrix units of a CPU (Intel AMX)."""

_before_compiling: ContextVar[Callable[[], None]] = ContextVar("_before_compiling", default=lambda: None)


class UnusableCache(UserWarning):
    """Compiled loops can be neither kept nor read where numba keeps them."""


@cache
def has_numba() -> bool:
    """True if numba can be imported."""
    return find_spec("numba") is not None


@cache
def has_amx() -> bool:
    """True if this process may use the matrix units of the CPU, and numba compiles for them.

    Linux gives them to a process that asks for their state: see "XSTATE" in the kernel's documentation for x86.
    """
    if not (has_numba() and sys.platform == "linux" and platform.machine() == "x86_64"):
        return False
    from llvmlite.binding import get_host_cpu_features  # type: ignore[import-untyped]
    from numba import config

    features = config.CPU_FEATURES if config.CPU_FEATURES is not None else get_host_cpu_features().flatten()
    if not {"+amx-tile", "+amx-bf16", "+avx512bf16"} <= set(features.split(",")):
        return False
    arch_prctl, request, tiles = 158, 0x1023, 18
    return bool(ctypes.CDLL(None).syscall(arch_prctl, request, tiles) == 0)


def check_kernels(kernels: Kernels, who: str) -> None:
    """Refuse compiled kernels where numba is missing.

    Args:
        kernels: the choice.
        who: subject of the error message.

    Raises:
        BadInput: numba is not installed, or the CPU has no matrix units for 'amx'.
    """
    if kernels != "torch" and not has_numba():
        raise BadInput(
            f'{who} = {kernels!r}: needs numba, which is not installed; run: pip install "ohmformer[fast]", or take '
            "'torch'"
        )
    if kernels == "amx" and not has_amx():
        raise BadInput(
            f"{who} = 'amx': needs Linux on a CPU with Intel AMX (Xeon processors since 2023), which is not here; "
            "take 'compiled'"
        )


def compiled(*signatures: str) -> Callable[[Callable[..., Any]], Any]:
    """Decorator that compiles a function, which then runs without Python's lock.

    What was compiled is kept for later processes: beside the file, or if nobody may write there, in the user's cache
    folder of numba (the environment variable NUMBA_CACHE_DIR names another). Where neither can be written, each process
    compiles anew; where the disk is full or a file is damaged, a warning says so.

    Args:
        signatures: types of the arguments, for functions that Python calls; none for functions that such functions
            call, which become part of them.
    """
    import numba

    options = {"nogil": True, "error_model": "numpy"}

    def decorate(function: Callable[..., Any]) -> Any:
        if not signatures:
            return numba.njit(forceinline=True, **options)(function)
        # numba sees changes of the file of a function, but not of the files of functions that it calls.
        function.__qualname__ += f"_{sources_digest()}"
        folder = ""
        try:
            loop = numba.njit(cache=True, **options)(function)
            folder = loop.stats.cache_path
            return _compile(loop, signatures, kept=any(Path(folder).glob(f"*.{function.__qualname__}-*.nbi")))
        except Exception as error:  # damaged files make numba raise many kinds of errors, and a full disk OSError
            loop = _compile(numba.njit(**options)(function), signatures, kept=False)
            if folder:  # otherwise there is no place for the cache
                _warn_of_cache(folder, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
            return loop

    return decorate


def _compile(loop: Any, signatures: tuple[str, ...], *, kept: bool) -> Any:
    """Compile a loop of numba for some types of arguments, or read it from the cache where it is kept."""
    if not kept:
        _before_compiling.get()()
    for signature in signatures:
        loop.compile(signature)
    loop.disable_compile()
    return loop


@cache
def _warn_of_cache(folder: str, reason: str) -> None:
    """Warn that a cache cannot be used; all loops of a folder have the same warning, which is raised once."""
    warnings.warn(
        f"{folder}: compiled loops cannot be kept there or read ({reason}), so each "
        "process compiles them anew, some ten seconds; make room there or remove the files *.nbi and *.nbc, or name "
        "another folder by NUMBA_CACHE_DIR",
        UnusableCache,
        stacklevel=3,
    )


def load_loops(tell: Callable[[], None], kernels: Kernels = "compiled") -> None:
    """Import all files that hold compiled loops.

    Args:
        tell: is called once if a loop must be compiled first, which takes seconds.
        kernels: the choice that needs them.
    """
    told = list[bool]()

    def once() -> None:
        if not told:
            told.append(True)
            tell()

    token = _before_compiling.set(once)
    try:
        for file in _files() + (_amx_files() if kernels == "amx" else []):
            import_module(".".join(("ohmformer", *file.relative_to(PACKAGE).with_suffix("").parts)))
    finally:
        _before_compiling.reset(token)


def _files() -> list[Path]:
    return sorted(PACKAGE.rglob(FILES))


def _amx_files() -> list[Path]:
    return sorted(PACKAGE.rglob(AMX_FILES))


@cache
def sources_digest() -> str:
    """Digest of all files that hold compiled loops, and of this one."""
    return hashlib.sha256(
        b"".join(file.read_bytes() for file in (Path(__file__), *_files(), *_amx_files()))
    ).hexdigest()[:16]


@cache
def intrinsics() -> tuple[Any, Any]:
    """Return two functions for compiled loops.

    `fused(a, b, c)` is a b + c in float32, rounded once. `wide()` lets a loop use the widest vectors of the CPU, which
    changes no number; it does nothing where the compiler knows no such wish.
    """
    from numba import types
    from numba.extending import intrinsic

    number = types.float32

    @intrinsic
    def fused(context: Any, a: Any, b: Any, c: Any) -> Any:
        def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
            return builder.fma(*arguments)

        return number(number, number, number), generate

    @intrinsic
    def wide(context: Any) -> Any:
        def generate(target: Any, builder: Any, _: Any, __: Any) -> Any:
            attributes = builder.function.attributes
            if isinstance(attributes, set):  # llvmlite lists the attributes that it knows, without this one of LLVM
                set.add(attributes, '"prefer-vector-width"="512"')
            return target.get_dummy_value()

        return types.none(), generate

    return fused, wide


@cache
def memory() -> Any:
    """Return a function for compiled loops: the `count` float32 numbers at an address.

    A loop that takes an address in place of an array is called in a fraction of the time; its caller keeps the memory.
    """
    from numba import carray, types
    from numba.extending import intrinsic

    @intrinsic
    def pointer(context: Any, address: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], target.get_value_type(signature.return_type))

        return types.CPointer(types.float32)(types.int64), generate

    def floats_at(address: Any, count: Any) -> Any:
        return carray(pointer(address), (count,))

    return compiled()(floats_at)
