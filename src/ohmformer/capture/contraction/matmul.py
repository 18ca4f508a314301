"""`Contraction`: one form for all calls of PyTorch that multiply matrices, left[..., M, I] times right[..., O, I].

Shapes: M rows of the left factor, O columns of the result, I contracted; `...` are axes that both factors share by
broadcasting, such as samples and heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ohmformer.capture.contraction.convolution import CONVOLUTIONS, as_product
from ohmformer.capture.contraction.einsum import as_matrices
from ohmformer.capture.torch_private import storage_id


@dataclass(frozen=True)
class Contraction:
    """A product of two factors.

    Attributes:
        left: left factor [..., M, I].
        right: right factor [..., O, I].
        finish: function from the product [..., M, O] to the result of the call.
        views: for left and right factor, the view of which the factor may be a copy; None if it is not a copy.
    """

    left: Tensor
    right: Tensor
    finish: Callable[[Tensor], Tensor]
    views: tuple[Tensor | None, Tensor | None] = (None, None)

    @property
    def plain(self) -> bool:
        """True if the call returns the product [..., M, O] unchanged."""
        return self.finish is _identity

    def transposed(self) -> Contraction:
        """The same product as the transpose of right times left, so that the left factor can be stored in cells."""
        views = (self.views[1], self.views[0])
        # The result of a product is contiguous, so models call `view` on it.
        return Contraction(self.right, self.left, lambda y: self.finish(y.transpose(-2, -1).contiguous()), views)

    def without_copies(self, *, single: bool = False) -> Contraction:
        """The same product, with a right factor that is not expanded along leading axes.

        Args:
            single: also drop leading axes of size 1, as expansions to a single copy have them.
        """
        left, right = self.left, self.right
        while right.dim() > 2 and left.dim() >= right.dim() and self.views[1] is None:
            copies = right.shape[0]
            expanded = right.stride(0) == 0 and copies > 1 and left.shape[-right.dim()] == copies
            if not expanded and not (single and copies == 1):
                break
            right = right[0]
        return self if right is self.right else Contraction(left, right, self.finish, self.views)

    @property
    def origin(self) -> Tensor:
        """The right factor, or the view that it is a copy of; its memory shows which parameter it belongs to."""
        view = self.views[1]
        return self.right if view is None or storage_id(view) == storage_id(self.right) else view


def _identity(y: Tensor) -> Tensor:
    return y


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Contraction:
    left = input if input.dim() > 1 else input[None]
    matrix = weight if weight.dim() > 1 else weight[None]
    shape = (*input.shape[:-1], *weight.shape[:-1])
    return Contraction(left, matrix, lambda y: _add_bias(y.reshape(shape), bias))


def _add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias


def _matmul(input: Tensor, other: Tensor) -> Contraction:
    if input.dim() == 1 or other.dim() == 1:
        left = input if input.dim() > 1 else input[None]
        right = other.transpose(-2, -1) if other.dim() > 1 else other[None]
        dims = [dim for dim, factor in ((-2, input), (-1, other)) if factor.dim() == 1]
        return Contraction(left, right, lambda y: y.squeeze(dims))
    return Contraction(input, other.transpose(-2, -1), _identity)


def _baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Contraction:
    def finish(y: Tensor) -> Tensor:
        return alpha * y if beta == 0 else beta * input + alpha * y

    return Contraction(batch1, batch2.transpose(-2, -1), finish)


def _addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Contraction:
    inner = _baddbmm(input[..., None], mat, vec[:, None], beta=beta, alpha=alpha)
    return Contraction(inner.left, inner.right, lambda y: inner.finish(y).squeeze(-1))


def _einsum(equation: str, *operands: Any) -> Contraction | None:
    factors = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    matrices = as_matrices(equation, factors) if isinstance(equation, str) else None
    return None if matrices is None else Contraction(*matrices)


_BATCHES = {"mat1": "batch1", "mat2": "batch2"}
_READERS: dict[Any, tuple[Callable[..., Contraction | None], dict[str, str]]] = {
    F.linear: (_linear, {}),
    torch.einsum: (_einsum, {}),
    Tensor.__rmatmul__: (lambda other, input: _matmul(input, other), {}),
    **dict.fromkeys((torch.matmul, torch.linalg.matmul, Tensor.matmul, Tensor.__matmul__), (_matmul, {})),
    **dict.fromkeys((torch.mm, torch.bmm, Tensor.mm, Tensor.bmm), (_matmul, {"mat2": "other"})),
    **dict.fromkeys((torch.mv, Tensor.mv), (_matmul, {"vec": "other"})),
    **dict.fromkeys((torch.addmm, torch.baddbmm, Tensor.addmm, Tensor.baddbmm), (_baddbmm, _BATCHES)),
    **dict.fromkeys((torch.addmv, Tensor.addmv), (_addmv, {})),
}
"""Function -> the reader of its arguments, and its argument names -> those of the reader where they differ."""


def as_contraction(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Contraction | None:
    """A call of PyTorch as a product of two factors; None if it is not a product, or if it is not understood."""
    if kwargs.get("out") is not None:
        return None
    if func in CONVOLUTIONS:
        product = as_product(*args, **kwargs)
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        return None if product is None else Contraction(*product, views=(None, weight))
    if func not in _READERS:
        return None
    read, names = _READERS[func]
    return read(*args, **{names.get(name, name): value for name, value in kwargs.items() if name != "out"})
