"""Scores are followed from Q K^T to their softmax, and probabilities from there to P V, to see what the mask hides.

What enters between product and softmax is the model's own affair: it adds, fills, multiplies, gathers, folds windows.
So the product waits: a stand-in without values takes its place, the calls on it are noted down, and at the softmax the
same calls on scores of zero show what can be seen. Then the product is computed, and the calls are done with its
values. Where scores take another way than to a softmax, nothing is assumed.

Shapes: M queries, N keys; `...` are axes of samples and heads in any order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from ohmformer.capture.contraction.matmul import Contraction, contraction
from ohmformer.capture.masks import HIDDEN, allowed

SOFTMAX = {"softmax", "_softmax"}
_SAME = {
    "to", "type", "type_as", "float", "half", "bfloat16", "double", "clone", "detach", "contiguous", "nan_to_num",
}  # fmt: skip
_TIMES = {"mul", "__mul__", "__rmul__", "mul_", "__imul__", "div", "__truediv__", "div_", "__itruediv__"}
_PLUS = {"add", "__add__", "__radd__", "add_", "__iadd__"}
_MINUS = {"sub", "__sub__", "sub_", "__isub__"}
_FILL = {"masked_fill", "masked_fill_"}
_VIEWS = {
    "view", "reshape", "transpose", "permute", "unsqueeze", "squeeze", "flatten", "unflatten", "expand", "swapaxes",
    "swapdims", "movedim", "moveaxis", "__getitem__", "narrow", "chunk", "split", "unbind", "select", "contiguous",
}  # fmt: skip
"""What moves values, or leaves some out."""
_OTHERS = {
    "where", "cat", "concat", "concatenate", "stack", "gather", "take_along_dim", "index_select", "roll", "flip", "pad",
    "_pad", "repeat", "repeat_interleave", "tile", "tril", "triu", "neg", "__neg__", "rsub", "__rsub__", "tanh",
    "maximum", "clamp", "clip", "clamp_min", "__setitem__", "einsum", "as_strided", "expand_as", "view_as", "dropout",
    "reshape_as", "masked_fill", "masked_fill_", "unfold", "diagonal", "squeeze_", "unsqueeze_", "tanh_", "neg_",
    "__get__", "rearrange", "tensor_split", "hsplit", "vsplit", "chunk", "ravel", "index_fill", "index_fill_",
}  # fmt: skip
"""What else may stand between a product and its softmax, and treats every score alike, whatever its value."""
_LOOKS = {
    "size", "dim", "numel", "stride", "is_contiguous", "element_size", "__len__", "is_floating_point", "is_complex",
    "get_device", "ndimension", "nelement", "is_inference",
}  # fmt: skip
"""What asks of a tensor other things than its values."""
_MAKES = {"new_ones", "new_zeros", "new_full", "new_empty", "ones_like", "zeros_like", "full_like", "empty_like"}
"""What makes constants of the type of a tensor."""
_LARGEST = {"max", "amax", "logsumexp"}
_KNOWN = _SAME | _TIMES | _PLUS | _MINUS | _FILL | _VIEWS | _OTHERS | _LARGEST
_IN_PLACE = re.compile(r"[a-z]\w*[a-z0-9]_|__i(?!nvert)\w+__").fullmatch


@dataclass(eq=False)
class Scores:
    """One product that is followed.

    Attributes:
        result: what the model has of it: the scores, or a stand-in.
        found: its factors.
        settle: computes it, given what of [..., M, N] is seen, or None where that is not known; None where `result`
            holds the scores.
        told: is told what is seen; None where that is all.
    """

    result: Tensor
    found: Contraction
    settle: Callable[[Tensor | None], Tensor] | None = None
    told: Callable[[Tensor | None], None] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the product [..., M, N], before it is brought into the shape that the model asked for."""
        left, right = self.found.left, self.found.right
        lead = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        return (*lead, left.shape[-2], right.shape[-2])


@dataclass(eq=False)
class Call:
    """One call on scores, or on what became of them."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Tensor]

    @property
    def name(self) -> str:
        """What the function is called."""
        return str(getattr(self.func, "__name__", ""))

    def again(self, values: dict[int, Tensor], plain: bool = False) -> list[Tensor]:
        """The same call on other values, by the identity of the tensors that they replace."""

        def other(t: Tensor) -> Tensor:
            return values[id(t)] if id(t) in values else t.clone() if plain and t.is_inference() else t

        args, kwargs = tree_map_only(Tensor, other, (self.args, self.kwargs))
        output = self.func(*args, **kwargs)
        return _tensors(output) if _in_place(self.func) is False else [args[0]]


@dataclass(eq=False)
class Chain:
    """Products and the calls on them, up to a softmax; several products may be added up on the way."""

    products: list[Scores] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        """Whether a product is not computed yet."""
        return any(one.settle is not None for one in self.products)


class Follower:
    """Follows scores and probabilities through the calls of one module."""

    def __init__(self) -> None:
        self.chains = WeakIdKeyDictionary()
        self.values = WeakIdKeyDictionary()
        self.seen = WeakIdKeyDictionary()
        self.followed = (self.chains.data, self.values.data, self.seen.data)
        """All that is followed: `any` of these tells whether there is anything, faster than a call."""

    @property
    def busy(self) -> bool:
        """True if there is anything to follow."""
        return any(self.followed)

    def wait(self, found: Contraction, settle: Callable[[Tensor | None], Tensor]) -> Tensor:
        """A stand-in for a product that is computed when its mask is known."""
        one = Scores(found.left, found, settle)
        empty = found.left.new_zeros(()).expand(one.shape)
        with torch.no_grad():
            one.result = found.finish(empty)
        self.chains[one.result] = Chain([one])
        return one.result

    def begin(self, found: Contraction, result: Tensor, told: Callable[[Tensor | None], None] | None = None) -> None:
        """Follow scores that are computed already."""
        self.chains[result] = Chain([Scores(result, found, told=told)])

    def known(self, values: Any) -> Any:
        """Stand-ins whose values are known by now replaced by them."""
        if not self.values.data:
            return values
        return tree_map_only(Tensor, lambda t: self.values.get(t, t), values)

    @property
    def waiting(self) -> bool:
        """Whether a product is not computed yet."""
        return bool(self.chains.data)

    def concerns(self, values: Any) -> bool:
        """Whether arguments hold something that is followed."""
        return any(isinstance(t, Tensor) and (t in self.chains or t in self.seen) for t in tree_leaves(values))

    def settle(self, chain: Chain, at: Tensor | None = None) -> None:
        """Compute what waits, as the softmax of a tensor asks for it; without one, what is seen is not known."""
        visible = None if at is None else _visible(chain, at)
        of_products = visible[1] if visible else [None] * len(chain.products)
        for one, seen in zip(chain.products, of_products, strict=True):
            if one.told is not None and visible is not None:
                one.told(seen)
        if chain.waits:
            values: dict[int, Tensor] = {}
            for one, seen in zip(chain.products, of_products, strict=True):
                values[id(one.result)] = one.result if one.settle is None else one.settle(seen)
                self.values[one.result] = values[id(one.result)]
            for call in chain.calls:
                for old, new in zip(call.outputs, call.again(values), strict=True):
                    values[id(old)] = self.values[old] = new
        for t in (*(one.result for one in chain.products), *(t for call in chain.calls for t in call.outputs)):
            self.chains.pop(t, None)
        if at is not None and visible is not None and visible[0] is not None:
            self.seen[self.values.get(at, at)] = visible[0]
        chain.products, chain.calls = [], []

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of the model on something that is followed; products are not to be given here."""
        name = getattr(func, "__name__", "")
        waiting = list({id(c): c for t in _tensors((args, kwargs)) if (c := self.chains.get(t)) is not None}.values())
        if not waiting:
            return self._after(func, name, args, kwargs)
        if name in _LOOKS | _MAKES:
            return func(*args, **kwargs)
        if name in SOFTMAX:
            return self._softmax(func, args, kwargs, waiting)
        if name == "__get__" and not isinstance(output := func(*args, **kwargs), Tensor):
            return output
        return self._noted(func, args, kwargs, waiting)

    def computed(self, values: Any) -> Any:
        """The same with all values: what is seen of products that still wait is not known."""
        for t in _tensors(values):
            if t in self.chains:
                self.settle(self.chains[t])
        return self.known(values)

    def _by_value(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A call that needs values, or that is not followed."""
        args, kwargs = self.computed((args, kwargs))
        return func(*args, **kwargs)

    def _softmax(self, func: Any, args: Any, kwargs: Any, chains: list[Chain]) -> Any:
        at = args[0] if args else kwargs.get("input")
        for chain in chains:
            self.settle(chain, at if isinstance(at, Tensor) else None)
        args, kwargs = self.known((args, kwargs))
        output = func(*args, **kwargs)
        if args and args[0] in self.seen:
            self.seen[output] = self.seen.pop(args[0])
        return output

    def _noted(self, func: Any, args: Any, kwargs: Any, chains: list[Chain]) -> Any:
        """A call on scores that leads on to a softmax, perhaps."""
        inside = _in_place(func)
        random = "dropout" in getattr(func, "__name__", "") and kwargs.get("training", True)
        if random or "out" in kwargs or (inside and args[0] not in self.chains):
            return self._by_value(func, args, kwargs)
        chain = chains[0]
        for other in chains[1:]:
            chain.products += other.products
            chain.calls += other.calls
        if not any(c.waits for c in chains):
            output = func(*args, **kwargs)
            outputs = _tensors(output) if not inside else [args[0]]
        elif inside:
            output = None if func is Tensor.__setitem__ else args[0]
            outputs = [args[0]]
        else:
            try:
                output = self._shaped(func, args, kwargs)
            except Exception:  # values are needed, or a tensor that can be written to
                return self._by_value(func, args, kwargs)
            outputs = _tensors(output)
        if not outputs:
            return self._by_value(func, args, kwargs)
        chain.calls.append(Call(func, args, kwargs, outputs))
        held = {id(c) for c in chains}
        for t in [t for t, c in self.chains.items() if id(c) in held] if len(chains) > 1 else []:
            self.chains[t] = chain
        self.chains.update((t, chain) for t in outputs)
        return output

    @staticmethod
    def _shaped(func: Any, args: Any, kwargs: Any) -> Any:
        """What a call on stand-ins returns, as far as shape and type go."""
        name = getattr(func, "__name__", "")
        with torch.no_grad():
            if name in _TIMES | _PLUS | _MINUS and len(args) == 2 and not kwargs:
                shapes = [t.shape for t in args if isinstance(t, Tensor)]
                first = next(t for t in args if isinstance(t, Tensor))
                dtype = torch.result_type(*args)
                return torch.zeros((), dtype=dtype, device=first.device).expand(torch.broadcast_shapes(*shapes))
            return func(*args, **kwargs)

    def _after(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """A call on probabilities: what is hidden stays so where values are moved, or where zeros stay zeros."""
        before = args[0] if args and isinstance(args[0], Tensor) and args[0] in self.seen else None
        seen = None if before is None else self.seen[before]
        if name in _TIMES and before is None and len(args) > 1 and isinstance(args[1], Tensor):
            before, seen = args[1], self.seen.get(args[1])
        output = func(*args, **kwargs)
        if before is None or seen is None or name in _LOOKS:
            return output
        kept = name in _SAME or name in _TIMES or "dropout" in name
        kept = kept or (name in _FILL and not isinstance(args[2], Tensor) and args[2] == 0)
        if kept and isinstance(output, Tensor) and output.shape == before.shape:
            self.seen[output] = seen
        elif name in _VIEWS and not _in_place(func):
            moved = func(seen.expand(before.shape), *args[1:], **kwargs)
            for new, what in zip(_tensors(output), _tensors(moved), strict=True):
                self.seen[new] = what
        elif output is before or func is Tensor.__setitem__:
            self.seen.pop(before, None)
        return output

    def seen_by(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Contraction | None:
        """A product of probabilities, with what is seen [..., M, N] in their place; None where that is not known."""
        held = [t for t in _tensors((args, kwargs)) if t in self.seen]
        if len(held) != 1:
            return None
        seen = self.seen[held[0]].expand(held[0].shape)
        changed = tree_map_only(Tensor, lambda t: seen if t is held[0] else t, (args, kwargs))
        return contraction(func, *changed)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _in_place(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or _IN_PLACE(name) is not None


Visible = tuple[Tensor | None, list[Tensor | None]]


def _visible(chain: Chain, at: Tensor) -> Visible | None:
    """What a softmax of `at` sees, and what of each product: [..., M, N], or None for all; None where it is unknown."""
    masks = _plain_masks(chain, at)
    if masks is not None:
        if not masks:
            return None, [None]
        seen = masks[0]
        for mask in masks[1:]:
            seen = seen & mask
        return seen, [seen]
    if any(call.name not in _KNOWN for call in chain.calls):
        return None
    try:
        return _traced_back(chain, at)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, IndexError):
        return None  # a call that cannot be repeated, or differentiated


def _plain_masks(chain: Chain, at: Tensor) -> list[Tensor] | None:
    """What each mask lets be seen, where scores [..., M, N] keep their shape up to the softmax; None otherwise."""
    one = chain.products[0]
    if len(chain.products) > 1 or tuple(at.shape) != one.shape or not one.found.plain:
        return None
    masks: list[Tensor] = []
    last = one.result
    for call in chain.calls:
        if not call.args or call.args[0] is not last:
            swapped = len(call.args) == 2 and call.args[1] is last and call.name in _PLUS | _TIMES
            if not swapped:
                return None
        found = _mask_of(call, last)
        if found is None or len(call.outputs) != 1 or call.outputs[0].shape != at.shape:
            return None
        masks += found
        last = call.outputs[0]
    return masks if last is at else None


def _mask_of(call: Call, scores: Tensor) -> list[Tensor] | None:
    """What one call on scores lets be seen; None where it is not as simple as that."""
    name, rest = call.name, [a for a in call.args if a is not scores]
    if name in _SAME:
        return []
    if call.kwargs or not rest or len(rest) == len(call.args):
        return None
    if name in _TIMES:
        return []
    if name in _PLUS | _MINUS and len(rest) == 1:
        if not isinstance(rest[0], Tensor):
            return []
        return [allowed(rest[0] if name in _PLUS else -rest[0])] if rest[0].is_floating_point() else None
    if name in _FILL and len(rest) == 2 and isinstance(rest[0], Tensor):
        return [~rest[0].bool()] if _least(rest[1]) else []
    return None


def _least(value: Any) -> bool:
    """Whether a value hides scores that it takes the place of."""
    return float(value) <= HIDDEN


def _traced_back(chain: Chain, at: Tensor) -> Visible | None:
    """What is seen of products, from what the softmax can see of them: where its input depends on them at all."""
    with torch._C.DisableTorchFunction(), torch.inference_mode(False), torch.enable_grad():
        starts = [torch.zeros(one.shape, device=at.device, requires_grad=True) for one in chain.products]
        values = {}
        for one, start in zip(chain.products, starts, strict=True):
            values[id(one.result)] = one.found.finish(start.to(_float(one.result))).clone()
        for call in chain.calls:
            outputs = call.again(values, plain=True)
            largest = call.name in _LARGEST and not (len(call.args) > 1 and isinstance(call.args[1], Tensor))
            # A softmax is the same whatever is subtracted from a whole row.
            outputs = [torch.zeros_like(t) for t in outputs] if largest else outputs
            values |= {id(old): new for old, new in zip(call.outputs, outputs, strict=True)}
        end = values[id(at)]
        seen = ~(end.detach() <= HIDDEN)
        whole = bool(seen.all())
        if whole and all(one.shape[-2:] == end.shape[-2:] for one in chain.products):
            return None, [None] * len(starts)
        # Weights that differ, so that what a sum over them takes away does not cancel.
        weights = 0.5 + torch.arange(end.numel(), device=end.device).mul(0.618034).remainder(1.0).view(end.shape)
        grads = torch.autograd.grad(end, starts, (weights * seen).to(end.dtype), allow_unused=True)
    of_products = [None if grad is None else grad != 0 for grad in grads]
    return None if whole else seen, [None if one is None or bool(one.all()) else one for one in of_products]


def _float(t: Tensor) -> torch.dtype:
    return t.dtype if t.is_floating_point() else torch.float32
