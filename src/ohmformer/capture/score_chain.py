"""Chains of calls from a product Q K^T to its softmax, and the visible masks that they show.

Shapes: M queries, N keys; `...` are axes of samples and heads in any order. A visible mask is True where a query sees
a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ohmformer.capture.contraction.matmul import Contraction
from ohmformer.capture.inputs import tensors_in
from ohmformer.capture.masks import HIDDEN, allowed
from ohmformer.capture.torch_private import tree_map_only, unintercepted

SOFTMAX = {"softmax", "_softmax"}
KEEPS_VALUES = {
    "to", "type", "type_as", "float", "half", "bfloat16", "double", "clone", "detach", "contiguous", "nan_to_num",
}  # fmt: skip
TIMES = {"mul", "__mul__", "__rmul__", "mul_", "__imul__", "div", "__truediv__", "div_", "__itruediv__"}
PLUS = {"add", "__add__", "__radd__", "add_", "__iadd__"}
MINUS = {"sub", "__sub__", "sub_", "__isub__"}
FILL = {"masked_fill", "masked_fill_"}
VIEWS = {
    "view", "reshape", "transpose", "permute", "unsqueeze", "squeeze", "flatten", "unflatten", "expand", "swapaxes",
    "swapdims", "movedim", "moveaxis", "__getitem__", "narrow", "chunk", "split", "unbind", "select", "contiguous",
}  # fmt: skip
"""Functions that move values, or leave some out."""
_VALUE_BLIND = {
    "where", "cat", "concat", "concatenate", "stack", "gather", "take_along_dim", "index_select", "roll", "flip", "pad",
    "_pad", "repeat", "repeat_interleave", "tile", "tril", "triu", "neg", "__neg__", "rsub", "__rsub__", "tanh",
    "maximum", "clamp", "clip", "clamp_min", "__setitem__", "einsum", "as_strided", "expand_as", "view_as", "dropout",
    "reshape_as", "masked_fill", "masked_fill_", "unfold", "diagonal", "squeeze_", "unsqueeze_", "tanh_", "neg_",
    "__get__", "rearrange", "tensor_split", "hsplit", "vsplit", "chunk", "ravel", "index_fill", "index_fill_",
}  # fmt: skip
"""Other functions that may stand between a product and its softmax: they treat all scores alike, of any value."""
METADATA = {
    "size", "dim", "numel", "stride", "is_contiguous", "element_size", "__len__", "is_floating_point", "is_complex",
    "get_device", "ndimension", "nelement", "is_inference",
}  # fmt: skip
"""Functions that return metadata of a tensor, not values."""
FACTORIES = {"new_ones", "new_zeros", "new_full", "new_empty", "ones_like", "zeros_like", "full_like", "empty_like"}
"""Functions that make constants of the type of a tensor."""
_LARGEST = {"max", "amax", "logsumexp"}
_KNOWN = KEEPS_VALUES | TIMES | PLUS | MINUS | FILL | VIEWS | _VALUE_BLIND | _LARGEST
_IN_PLACE = re.compile(r"[a-z]\w*[a-z0-9]_|__i(?!nvert)\w+__").fullmatch


@dataclass(eq=False)
class Scores:
    """The scores of one product that is followed.

    Attributes:
        result: the tensor that the model holds: the scores, or their placeholder.
        factors: the factors of the product.
        compute: computes the scores from their visible mask [..., M, N] (None if it is unknown); None if `result`
            already holds the scores.
        on_visible: called with the visible mask [..., M, N] (None if all keys are visible); None if nobody needs it.
    """

    result: Tensor
    factors: Contraction
    compute: Callable[[Tensor | None], Tensor] | None = None
    on_visible: Callable[[Tensor | None], None] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape [..., M, N] of the product, before it is brought into the shape that the model gets."""
        left, right = self.factors.left, self.factors.right
        lead = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        return (*lead, left.shape[-2], right.shape[-2])


@dataclass(eq=False)
class ScoreCall:
    """One call of the model on scores, or on a tensor computed from them."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Tensor]

    @property
    def name(self) -> str:
        """Name of the function."""
        return str(getattr(self.func, "__name__", ""))

    def repeat(self, values: dict[int, Tensor], differentiable: bool = False) -> list[Tensor]:
        """Repeat the call on other values.

        Args:
            values: id of a tensor of the first call -> the tensor that replaces it.
            differentiable: True if tensors made in inference mode are to be copied, so that gradients can be computed.

        Returns:
            The tensors that the call returns or changes.
        """

        def replaced(t: Tensor) -> Tensor:
            return values[id(t)] if id(t) in values else t.clone() if differentiable and t.is_inference() else t

        args, kwargs = tree_map_only(Tensor, replaced, (self.args, self.kwargs))
        output = self.func(*args, **kwargs)
        return tensors_in(output) if is_in_place(self.func) is False else [args[0]]


@dataclass(eq=False)
class Chain:
    """Products and the calls on their scores, up to a softmax; the scores of several products may be added up."""

    products: list[Scores] = field(default_factory=list)
    calls: list[ScoreCall] = field(default_factory=list)

    @property
    def deferred(self) -> bool:
        """True if a product of the chain is not computed yet."""
        return any(scores.compute is not None for scores in self.products)


def is_in_place(func: Any) -> bool:
    """True if a function changes its first argument in place."""
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or _IN_PLACE(name) is not None


VisibleMasks = tuple[Tensor | None, list[Tensor | None]]
"""The visible mask at a softmax, and that of each product [..., M, N]; a mask is None if all keys are visible."""


def visible_masks(chain: Chain, softmax_input: Tensor) -> VisibleMasks | None:
    """The visible masks at the softmax of a tensor of a chain; None if they are unknown."""
    masks = _plain_masks(chain, softmax_input)
    if masks is not None:
        if not masks:
            return None, [None]
        visible = masks[0]
        for mask in masks[1:]:
            visible = visible & mask
        return visible, [visible]
    if any(call.name not in _KNOWN for call in chain.calls):
        return None
    try:
        return _masks_by_gradient(chain, softmax_input)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, IndexError):
        return None  # a call that cannot be repeated, or differentiated


def _plain_masks(chain: Chain, softmax_input: Tensor) -> list[Tensor] | None:
    """The visible mask of each call, if scores [..., M, N] keep their shape up to the softmax; None otherwise."""
    scores = chain.products[0]
    if len(chain.products) > 1 or tuple(softmax_input.shape) != scores.shape or not scores.factors.plain:
        return None
    masks: list[Tensor] = []
    last = scores.result
    for call in chain.calls:
        if not call.args or call.args[0] is not last:
            swapped = len(call.args) == 2 and call.args[1] is last and call.name in PLUS | TIMES
            if not swapped:
                return None
        mask = _mask_of(call, last)
        if mask is None or len(call.outputs) != 1 or call.outputs[0].shape != softmax_input.shape:
            return None
        masks += mask
        last = call.outputs[0]
    return masks if last is softmax_input else None


def _mask_of(call: ScoreCall, scores: Tensor) -> list[Tensor] | None:
    """The visible mask that one call applies to scores, in a list; [] if it hides nothing, None if it is not plain."""
    name, rest = call.name, [a for a in call.args if a is not scores]
    if name in KEEPS_VALUES:
        return []
    if call.kwargs or not rest or len(rest) == len(call.args):
        return None
    if name in TIMES:
        return []
    if name in PLUS | MINUS and len(rest) == 1:
        if not isinstance(rest[0], Tensor):
            return []
        return [allowed(rest[0] if name in PLUS else -rest[0])] if rest[0].is_floating_point() else None
    if name in FILL and len(rest) == 2 and isinstance(rest[0], Tensor):
        return [~rest[0].bool()] if _hides(rest[1]) else []
    return None


def _hides(value: Any) -> bool:
    """True if a score of this value hides its key."""
    return float(value) <= HIDDEN


def _masks_by_gradient(chain: Chain, softmax_input: Tensor) -> VisibleMasks | None:
    """The visible masks, from the calls of a chain on scores of zero.

    A score is visible if the visible part of the input of the softmax depends on it: its gradient is not zero.
    """
    with unintercepted(), torch.inference_mode(False), torch.enable_grad():
        zeros = [torch.zeros(s.shape, device=softmax_input.device, requires_grad=True) for s in chain.products]
        values = {}
        for scores, zero in zip(chain.products, zeros, strict=True):
            values[id(scores.result)] = scores.factors.finish(zero.to(_floating_dtype(scores.result))).clone()
        for call in chain.calls:
            outputs = call.repeat(values, differentiable=True)
            largest = call.name in _LARGEST and not (len(call.args) > 1 and isinstance(call.args[1], Tensor))
            # The largest score is subtracted from the whole row, which does not change its softmax.
            outputs = [torch.zeros_like(t) for t in outputs] if largest else outputs
            values |= {id(old): new for old, new in zip(call.outputs, outputs, strict=True)}
        end = values[id(softmax_input)]
        visible = ~(end.detach() <= HIDDEN)
        whole = bool(visible.all())
        if whole and all(product.shape[-2:] == end.shape[-2:] for product in chain.products):
            return None, [None] * len(zeros)
        # All weights differ, so that the gradients of a difference of two scores do not cancel.
        weights = 0.5 + torch.arange(end.numel(), device=end.device).mul(0.618034).remainder(1.0).view(end.shape)
        grads = torch.autograd.grad(end, zeros, (weights * visible).to(end.dtype), allow_unused=True)
    masks = [None if grad is None else grad != 0 for grad in grads]
    return None if whole else visible, [None if mask is None or bool(mask.all()) else mask for mask in masks]


def _floating_dtype(t: Tensor) -> torch.dtype:
    return t.dtype if t.is_floating_point() else torch.float32
