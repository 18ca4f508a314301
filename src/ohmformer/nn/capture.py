"""A dry run that sees every product of a model: which are of weights, which of two activations, and whose they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from ohmformer.errors import BadInput

ProductKind = Literal["weights", "attention", "multihead attention", "two activations", "unknown"]

_WITH_WEIGHTS = {
    F.linear, F.conv1d, F.conv2d, F.conv3d, F.bilinear, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
    torch.conv1d, torch.conv2d, torch.conv3d,
}  # fmt: skip
_PRODUCTS = {
    torch.matmul, torch.bmm, torch.mm, torch.mv, torch.dot, torch.baddbmm, torch.addmm, torch.addbmm, torch.einsum,
    torch.tensordot, torch.inner, torch.chain_matmul, torch.linalg.multi_dot, torch.linalg.matmul, torch.linalg.vecdot,
    torch.addmv, torch.vdot, torch.kron, torch.outer,
    Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.bmm, Tensor.mm, Tensor.mv, Tensor.dot, Tensor.inner,
    Tensor.baddbmm, Tensor.addmm, Tensor.addbmm, Tensor.addmv,
}  # fmt: skip
_ADDED_FIRST = {"baddbmm", "addmm", "addbmm", "addmv"}
_KERNELS = (
    "mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "linalg_vecdot", "linear", "convolution",
    "cdist", "lstm", "gru", "rnn", "attention", "encoder_layer", "matmul", "einsum",
)  # fmt: skip
"""What the names of kernels that multiply hold, in whole or between underscores."""


@dataclass(frozen=True)
class Product:
    """One product that the dry run saw.

    Attributes:
        module: name of the innermost module at work.
        kind: what multiplies what.
        operation: the function that was called.
        shapes: of the operands.
    """

    module: str
    kind: ProductKind
    operation: str
    shapes: tuple[tuple[int, ...], ...]


def call(model: nn.Module, sample: Any) -> Any:
    """The model's output for a sample batch: a tensor, a tuple of arguments, or a mapping of keyword arguments."""
    if isinstance(sample, Mapping):
        return model(**sample)
    if isinstance(sample, (tuple, list)):
        return model(*sample)
    return model(sample)


def batch_size(sample: Any) -> int:
    """Leading size of the first tensor of a sample batch; 0 without any."""
    tensors = [leaf for leaf in tree_leaves(sample) if isinstance(leaf, Tensor) and leaf.dim() > 0]
    return tensors[0].shape[0] if tensors else 0


@dataclass
class DryRun:
    """What one forward pass did.

    Attributes:
        products: in order.
        calls: how often each module was called, by name.
        stack: names of the modules at work now, outermost first.
    """

    products: list[Product] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    stack: list[str] = field(default_factory=list)


def dry_run(model: nn.Module, sample: Any) -> DryRun:
    """Every product of one forward pass on a sample batch.

    Raises:
        BadInput: the model cannot be called with this sample.
    """
    seen = DryRun()
    with _module_stack(model, seen), torch.no_grad(), _Watch(model, seen) as watch, _Kernels(watch):
        try:
            call(model, sample)
        except Exception as error:
            why = str(error).strip().splitlines() or [""]
            line = f"the model fails on the sample ({type(error).__name__}: {why[0]}); correct one of them"
            raise BadInput(line) from error
    return seen


@contextmanager
def _module_stack(model: nn.Module, seen: DryRun) -> Iterator[None]:
    """Keep `seen.stack` and `seen.calls`."""
    handles = []
    for name, module in model.named_modules():

        def enter(_module: nn.Module, _args: Any, name: str = name) -> None:
            seen.stack.append(name)
            seen.calls[name] += 1

        def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
            seen.stack.pop()

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Watch(TorchFunctionMode):
    """Records products, and tells activations from what follows from parameters and constants alone."""

    def __init__(self, model: nn.Module, seen: DryRun) -> None:
        super().__init__()
        self.seen = seen
        self.known = 0
        self.fixed = WeakIdKeyDictionary()
        for module in model.modules():
            for value in tree_leaves([dict(module._parameters), dict(module._buffers), list(vars(module).values())]):
                if isinstance(value, Tensor):
                    self.fixed[value] = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at one call, then let it happen."""
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        kind = self._kind(func, inputs)
        if kind is not None:
            self.record(kind, func.__name__, inputs)
        known = kind is not None or func in _PRODUCTS or func in _WITH_WEIGHTS
        self.known += known
        try:
            output = func(*args, **kwargs)
        finally:
            self.known -= known
        if all(t in self.fixed for t in inputs):
            for leaf in tree_leaves(output):
                if isinstance(leaf, Tensor):
                    self.fixed[leaf] = True
        return output

    def record(self, kind: ProductKind, operation: str, inputs: list[Tensor]) -> None:
        """Write down one product of the module at work."""
        shapes = tuple(tuple(t.shape) for t in inputs)
        module = self.seen.stack[-1] if self.seen.stack else ""
        self.seen.products.append(Product(module, kind, operation, shapes))

    def _kind(self, func: Any, inputs: list[Tensor]) -> ProductKind | None:
        if func is F.scaled_dot_product_attention:
            return "attention"
        if func is F.multi_head_attention_forward:
            return "multihead attention"
        if func not in _WITH_WEIGHTS and func not in _PRODUCTS:
            return None
        operands = inputs[1:] if func.__name__ in _ADDED_FIRST else inputs
        operands = operands[:2] if func in _WITH_WEIGHTS else operands
        live = [t for t in operands if t not in self.fixed]
        if not live:
            return None
        return "weights" if len(live) < len(operands) else "two activations"


class _Kernels(TorchDispatchMode):
    """Sees the kernels below the functions, so that a product that no known function asked for is not missed."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record a kernel that multiplies, unless a function that is known called it."""
        name = func.overloadpacket.__name__
        multiplies = name in _KERNELS or any(part in _KERNELS for part in name.split("_"))
        if multiplies and not self.watch.known:
            self.watch.record("unknown", name, [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)][:2])
        return func(*args, **(kwargs or {}))
