"""Which generator draws the random numbers of a device, and under which name do results record it?"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Backend = Literal["generators", "philox", "philox_kernel"]
"""How numbers are drawn. `generators`: by one generator of torch for each key. `philox`: by Philox for all keys at
once, in PyTorch. `philox_kernel`: the same in one Triton kernel, whose numbers differ from those of `philox` by the
rounding of logarithm, sine and cosine."""


def backend_of(device: torch.device | str) -> Backend:
    """What draws the random numbers on a device: on a GPU the kernel where Triton is installed."""
    kind = str(device).split(":")[0]
    if kind == "cpu":
        return "generators"
    return "philox_kernel" if kind == "cuda" and has_triton() else "philox"


def counts(device: torch.device | str) -> bool:
    """True if a device draws by the counter-based generator."""
    return backend_of(device) != "generators"


@cache
def has_triton() -> bool:
    """True if Triton, which builds of PyTorch for CUDA bring along, can be imported."""
    return find_spec("triton") is not None


def drawn_on(device: torch.device | str) -> str:
    """The name of a type of device and of its generator, which are part of the key of a result."""
    kind, how = str(device).split(":")[0], backend_of(device)
    return kind if how == "generators" else f"{kind}, {how}"


def has_kernels(device: torch.device | str) -> bool:
    """True if steps of a product may be computed by kernels of Triton on a device."""
    return backend_of(device) == "philox_kernel"


def launching_on(t: torch.Tensor) -> AbstractContextManager[object]:
    """Context in which kernels are launched on the GPU of a tensor; in the interpreter there is none."""
    import torch

    return torch.cuda.device(t.device) if t.is_cuda else nullcontext()
