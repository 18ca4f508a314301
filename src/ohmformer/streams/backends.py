"""Which generator draws the random numbers of a device, and under which name do results record it?

On the CPU there is a choice, which travels with the streams: see `Kernels`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Kernels = Literal["torch", "compiled", "amx"]
"""What computes on the CPU. `torch`: operations of PyTorch. `compiled`: loops that numba compiles draw the numbers and
fuse steps around them. `amx`: the same, and usual products run on the matrix units of a CPU with Intel AMX. Other
devices compute the same with each."""
COMPILED: tuple[Kernels, ...] = ("compiled", "amx")
"""Those whose loops are compiled."""
Backend = Literal["generators", "philox", "philox_kernel", "philox_compiled"]
"""How numbers are drawn. `generators`: by one generator of torch for each key. `philox`: by Philox for all keys at
once, in PyTorch. `philox_kernel`: the same in one Triton kernel. `philox_compiled`: the same in loops that numba
compiles. Numbers of the three differ by the rounding of logarithm, sine and cosine."""


def backend_of(device: torch.device | str, kernels: Kernels = "torch") -> Backend:
    """What draws the random numbers on a device: on a GPU the kernel where Triton is installed.

    Args:
        device: the device.
        kernels: the choice for the CPU.
    """
    kind = str(device).split(":")[0]
    if kind == "cpu":
        return "philox_compiled" if kernels in COMPILED else "generators"
    return "philox_kernel" if kind == "cuda" and has_triton() else "philox"


def counts(device: torch.device | str, kernels: Kernels = "torch") -> bool:
    """True if a device draws by the counter-based generator; arguments as in `backend_of`."""
    return backend_of(device, kernels) != "generators"


@cache
def has_triton() -> bool:
    """True if Triton, which builds of PyTorch for CUDA bring along, can be imported."""
    return find_spec("triton") is not None


def drawn_on(device: torch.device | str, kernels: Kernels = "torch") -> str:
    """The name of a type of device, of its generator and of its matrix units, which are part of the key of a result."""
    kind, how = str(device).split(":")[0], backend_of(device, kernels)
    name = kind if how == "generators" else f"{kind}, {how}"
    return f"{name}, amx" if has_tiles(device, kernels) else name


def has_tiles(device: torch.device | str, kernels: Kernels) -> bool:
    """True if usual products run on the matrix units of the CPU; arguments as in `backend_of`."""
    return kernels == "amx" and str(device).split(":")[0] == "cpu"


def has_kernels(device: torch.device | str) -> bool:
    """True if steps of a product may be computed by kernels of Triton on a device."""
    return backend_of(device) == "philox_kernel"


def compiles(device: torch.device | str, kernels: Kernels) -> bool:
    """True if steps of a product are computed by compiled loops on a device; arguments as in `backend_of`."""
    return backend_of(device, kernels) == "philox_compiled"


def launching_on(t: torch.Tensor) -> AbstractContextManager[object]:
    """Context in which kernels are launched on the GPU of a tensor; in the interpreter there is none."""
    import torch

    return torch.cuda.device(t.device) if t.is_cuda else nullcontext()
