"""What multiplies below the functions of PyTorch: kernels, operations of others, and functions of functions."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ohmformer.capture.opaque_tensors import foreign, may_multiply
from ohmformer.capture.recorder import Recorder

_LAYERS = {
    "linear", "convolution", "conv", "conv2d", "conv3d", "trilinear", "lstm", "gru", "rnn", "attention",
    "encoder_layer",
}  # fmt: skip
"""What the names of kernels hold that multiply by the weights of a layer, in whole or between underscores."""

_MATRICES = {
    "mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "addr", "dot", "vdot", "matmul", "einsum", "cdist",
    "pdist", "sspaddmm", "hspmm", "spsolve",
    "linalg", "fft", "cholesky", "triangular_solve", "geqrf", "orgqr", "ormqr",
}  # fmt: skip
"""The same of kernels that multiply matrices of any origin. The last line holds factorizations, solutions of equations
and Fourier transforms: they multiply by what follows from their input, or by constants."""

_NO_MATRICES = {
    "linalg_vector_norm", "linalg__powsum", "linalg_cross", "linalg_diagonal", "linalg_vander", "_linalg_check_errors",
}  # fmt: skip
"""Kernels of linear algebra that multiply value by value, or not at all."""

_BAGS = {"_embedding_bag", "_embedding_bag_forward_only", "embedding_bag"}
"""Kernels that add rows of a table, and multiply only where rows have weights."""


class Kernels(TorchDispatchMode):
    """Sees the kernels below the functions, so that a product that no known function asked for is not missed."""

    supports_higher_order_operators = True

    def __init__(self, watch: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record what multiplies, or may hide a product, unless a function that is known called it."""
        kwargs = kwargs or {}
        if not self.watch.known:
            self._record(func, args, kwargs)
        return func(*args, **kwargs)

    def _record(self, func: Any, args: Any, kwargs: Any) -> None:
        if isinstance(func, HigherOrderOperator):  # a function of functions, such as attention with rules of its own
            live, _ = self.watch.floating((args, kwargs))
            if len(live) > 1:
                self.watch.record_unknown(func.name(), live[:2], "two activations")
            return
        name, other = func.overloadpacket.__name__, foreign(func)
        if other:
            live, matrices = self.watch.floating((args, kwargs))
            if may_multiply(func, len(live), len(matrices)):
                self.watch.record_unknown(other, (live + matrices)[:2])
            return
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        words = {name, *name.split("_")}
        of_matrices = (name not in _NO_MATRICES and not _MATRICES.isdisjoint(words)) or _weighted_bag(name, args)
        # What follows from parameters alone, such as a parametrization of weights, is computed once.
        varies = not self.watch.constant and not all(map(self.watch.fixed_value, tensors))
        if not _LAYERS.isdisjoint(words) or (of_matrices and varies):
            self.watch.record_unknown(name, tensors[:2])


def _weighted_bag(name: str, args: tuple[Any, ...]) -> bool:
    """True if a kernel adds rows of a table after it has multiplied each by a weight of its own."""
    return name in _BAGS and any(
        isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in tree_leaves(args[1:])
    )
