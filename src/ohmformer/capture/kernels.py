"""`Kernels`: finds products below the functions of PyTorch: in kernels, custom operators and higher-order operators."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ohmformer.capture.inputs import tensors_in
from ohmformer.capture.opaque_tensors import custom_operator, may_multiply
from ohmformer.capture.recorder import Recorder
from ohmformer.capture.torch_private import HigherOrderOperator, TorchDispatchMode, tree_leaves

_LAYER_WORDS = {
    "linear", "convolution", "conv", "conv2d", "conv3d", "trilinear", "lstm", "gru", "rnn", "attention",
    "encoder_layer",
}  # fmt: skip
"""Names of kernels that multiply by the weights of a layer, or words between underscores of such names."""

_MATRIX_WORDS = {
    "mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "addr", "dot", "vdot", "matmul", "einsum", "cdist",
    "pdist", "sspaddmm", "hspmm", "spsolve",
    "linalg", "fft", "cholesky", "triangular_solve", "geqrf", "orgqr", "ormqr",
}  # fmt: skip
"""The same for kernels that multiply any two matrices. The last line holds factorizations, solvers of equations and
Fourier transforms, which multiply by matrices computed from their input, or by constants."""

_NO_PRODUCTS = {
    "linalg_vector_norm", "linalg__powsum", "linalg_cross", "linalg_diagonal", "linalg_vander", "_linalg_check_errors",
}  # fmt: skip
"""Kernels of linear algebra that multiply value by value, or not at all."""

_EMBEDDING_BAGS = {"_embedding_bag", "_embedding_bag_forward_only", "embedding_bag"}
"""Kernels that add rows of a table, and multiply only if each row has a weight."""


class Kernels(TorchDispatchMode):
    """Records the kernels that multiply and that no recorded function called, so that no product is missed."""

    supports_higher_order_operators = True

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder
        recorder.kernels = self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record a kernel that multiplies, or may hide a product, unless a recorded function called it; then run it."""
        kwargs = kwargs or {}
        if not self.recorder.recorded_depth:
            self._record(func, args, kwargs)
        return func(*args, **kwargs)

    def _record(self, func: Any, args: Any, kwargs: Any) -> None:
        if isinstance(func, HigherOrderOperator):  # calls functions that it gets, such as flex_attention
            activations, _ = self.recorder.floating_tensors((args, kwargs))
            if len(activations) > 1:
                self.recorder.record_unknown(func.name(), activations[:2], "two activations")
            return
        name, custom = func.overloadpacket.__name__, custom_operator(func)
        if custom:
            activations, matrices = self.recorder.floating_tensors((args, kwargs))
            if may_multiply(func, len(activations), len(matrices)):
                self.recorder.record_unknown(custom, (activations + matrices)[:2])
            return
        words = {name, *name.split("_")}
        of_layer = not _LAYER_WORDS.isdisjoint(words)
        of_matrices = (name not in _NO_PRODUCTS and not _MATRIX_WORDS.isdisjoint(words)) or _is_weighted_bag(name, args)
        if not of_layer and not of_matrices:
            return
        tensors = tensors_in((args, kwargs))
        # An input-independent product, such as a parametrization of weights, is computed once and needs no hardware.
        varies = not self.recorder.independent_depth and not all(map(self.recorder.is_independent, tensors))
        if of_layer or varies:
            self.recorder.record_unknown(name, tensors[:2])


def _is_weighted_bag(name: str, args: tuple[Any, ...]) -> bool:
    """True if a kernel adds rows of a table and multiplies each by its weight."""
    return name in _EMBEDDING_BAGS and any(
        isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in tree_leaves(args[1:])
    )
