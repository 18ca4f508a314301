"""What multiplies below the functions of PyTorch: kernels, operations of others, and functions of functions."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ohmformer.capture.opaque_tensors import foreign, may_multiply
from ohmformer.capture.recorder import Recorder

_KERNELS = (
    "mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "linalg_vecdot", "linear", "convolution",
    "cdist", "lstm", "gru", "rnn", "attention", "encoder_layer", "matmul", "einsum",
)  # fmt: skip
"""What the names of kernels that multiply hold, in whole or between underscores."""


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
        elif name in _KERNELS or any(part in _KERNELS for part in name.split("_")):
            self.watch.record_unknown(name, [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)][:2])
