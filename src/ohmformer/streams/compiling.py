"""How loops over numbers are compiled for the CPU with numba, where it is installed and asked for.

The same operations give the same bits for every size of a tensor: nothing is reordered, and a product and a sum are
rounded together only where a loop says so (`fused`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohmformer.errors import BadInput

if TYPE_CHECKING:
    from ohmformer.streams.backends import Kernels

FILES = "*_compiled.py"
"""Names of the files that hold compiled loops; their imports compile them, or read what an earlier one has compiled."""


@cache
def has_numba() -> bool:
    """True if numba can be imported."""
    return find_spec("numba") is not None


def check_kernels(kernels: Kernels, who: str) -> None:
    """Refuse compiled kernels where numba is missing.

    Args:
        kernels: the choice.
        who: subject of the error message.

    Raises:
        BadInput: numba is not installed.
    """
    if kernels == "compiled" and not has_numba():
        raise BadInput(
            f"{who} = 'compiled': needs numba, which is not installed; run: pip install \"ohmformer[fast]\", or take "
            "'torch'"
        )


def compiled(*signatures: str) -> Callable[[Callable[..., Any]], Any]:
    """Decorator that compiles a function, which then runs without Python's lock.

    What was compiled is kept for later processes: beside the file, or if nobody may write there, in the user's cache
    folder of numba (the environment variable NUMBA_CACHE_DIR names another). Where neither can be written, each process
    compiles anew.

    Args:
        signatures: types of the arguments, for functions that Python calls; none for functions that such functions
            call, which become part of them.
    """
    import numba

    def decorate(function: Callable[..., Any]) -> Any:
        options = {"nogil": True, "error_model": "numpy"}
        if not signatures:
            return numba.njit(forceinline=True, **options)(function)
        # numba sees changes of the file of a function, but not of the files of functions that it calls.
        function.__qualname__ += f"_{sources_digest()}"
        try:
            return numba.njit(list(signatures), cache=True, **options)(function)
        except RuntimeError:  # no place for the cache
            return numba.njit(list(signatures), **options)(function)

    return decorate


@cache
def sources_digest() -> str:
    """Digest of all files that hold compiled loops, and of this one."""
    package = Path(__file__).parents[1]
    files = [Path(__file__), *sorted(package.rglob(FILES))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


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
