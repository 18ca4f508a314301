"""A dry run that also says what each product depends on, and how much of its written factor is new: for `trace`.

Works on the meta device too, where tensors have shapes only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from ohmformer.capture.contraction.grouped_matmul import GROUPED
from ohmformer.capture.product import Product, Seen
from ohmformer.capture.recorder import PRODUCTS, Recorder

_JOIN = {"cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"}
_ADDED_FIRST = {"baddbmm", "addmm", "addbmm", "addmv", "addr"}
_PAIRS = {"add", "add_", "__add__", "__iadd__", "__radd__", "mul", "mul_", "__mul__", "__imul__", "__rmul__"}
"""Functions that add or multiply two tensors value by value."""

Other = Literal["softmax", "normalization", "activation", "add", "lookup"]


@dataclass(frozen=True)
class TensorOrigin:
    """Where a tensor comes from.

    Attributes:
        deps: events that it depends on, one bit for each.
        stream: whose tokens they are: each model input and each embedding begins a stream; 0 is none.
        copies: how many equal copies of each value an expansion made.
        cached: how many of its tokens come from the cache.
    """

    deps: int = 0
    stream: int = 0
    copies: int = 1
    cached: int = 0


_NONE = TensorOrigin()


@dataclass(eq=False)
class Event:
    """One step of a forward pass: a product, or other work on `shape`.

    Attributes:
        index: of the first bit that stands for it; multi-head attention takes five.
        what: the product, or the kind of other work.
        module: name of the innermost module at work.
        blocks: names of all modules at work, with the number of their call, outermost first.
        deps: what it depends on.
        shape: that other work is done on.
        entries: of a lookup.
        left: where the left factor comes from (queries of fused attention).
        right: where the right factor comes from (keys).
        causal: what a call says of itself; None where it says nothing, and values are not to be seen.
    """

    index: int
    what: Product | Other
    module: str
    blocks: tuple[tuple[str, int], ...]
    deps: int
    shape: tuple[int, ...] = ()
    entries: int = 0
    left: TensorOrigin = _NONE
    right: TensorOrigin = _NONE
    causal: bool | None = None

    @property
    def bits(self) -> int:
        """What depends on it has one of these."""
        return 0b11111 << self.index


class TraceRecorder(Recorder):
    """Watches a forward pass and keeps all that it does in order, with what depends on what."""

    def __init__(self, model: nn.Module, seen: Seen, cache: tuple[Tensor, ...] = ()) -> None:
        super().__init__(model, seen)
        self.events: list[Event] = []
        self.trails = WeakIdKeyDictionary()
        self.streams = 0
        self.noted = (0, 0)
        self.norms = {n for n, m in model.named_modules() if "norm" in type(m).__name__.lower()}
        for leaf in cache:
            self.trails[leaf] = TensorOrigin(cached=leaf.shape[-2])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at one call, then let it happen."""
        self.flush()
        given = args[:1] if func is Tensor.__deepcopy__ else (args, kwargs or {})
        inputs = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        output = super().__torch_function__(func, types, args, kwargs)
        outputs = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        trails = [self._trail(t) for t in inputs]
        deps = 0
        for trail in trails:
            deps |= trail.deps
        before = len(self.events)
        self._record(func, args, kwargs or {}, inputs, outputs, trails, deps)
        for event in self.events[before:]:
            deps |= event.bits if isinstance(event.what, Product) else 0
        name = getattr(func, "__name__", "")
        after = replace(self._after(func, name, args, kwargs or {}, inputs, outputs, trails), deps=deps)
        changed = inputs[:1] if name == "__setitem__" else outputs
        for leaf in changed:
            if leaf not in self.fixed or deps:
                self.trails[leaf] = after
        return output

    def flush(self) -> None:
        """Take in what others wrote down: normalizations of whole modules, and kernels."""
        products, digital = self.noted
        for done in self.seen.digital[digital:]:
            self._add(done.kind, self._last_deps(), done.shape, module=done.module)
        for product in self.seen.products[products:]:
            self._add(product, self._last_deps(), module=product.module)
        self.noted = (len(self.seen.products), len(self.seen.digital))

    def _last_deps(self) -> int:
        return self.events[-1].deps | self.events[-1].bits if self.events else 0

    def _add(
        self, what: Product | Other, deps: int, shape: tuple[int, ...] = (), *, module: str | None = None
    ) -> Event:
        index = self.events[-1].index + 5 if self.events else 0
        name = self.module if module is None else module
        names = list(self.seen.stack)
        if name not in names:
            names.append(name)
        blocks = tuple((each, self.seen.calls[each]) for each in names)
        self.events.append(Event(index, what, name, blocks, deps, shape))
        return self.events[-1]

    def _trail(self, t: Tensor) -> TensorOrigin:
        found: TensorOrigin | None = self.trails.get(t)
        if found is None and t not in self.fixed and not isinstance(t, nn.Parameter):
            self.streams += 1
            found = self.trails[t] = TensorOrigin(stream=self.streams)
        return found or _NONE

    def _record(
        self,
        func: Any,
        args: Any,
        kwargs: dict[str, Any],
        inputs: list[Tensor],
        outputs: list[Tensor],
        trails: list[TensorOrigin],
        deps: int,
    ) -> None:
        """Write down the products of a call, and other work that it does."""
        products, digital = self.noted
        name = getattr(func, "__name__", "")
        for product in self.seen.products[products:]:
            event = self._add(product, deps)
            event.left, event.right = _factors(name, trails)
            event.causal = _causal(product, args, kwargs, inputs)
        if func not in PRODUCTS:
            for done in self.seen.digital[digital:]:
                self._add(done.kind, deps, _rows(name, done.shape))
        self.noted = (len(self.seen.products), len(self.seen.digital))
        if func is F.embedding and inputs[0] not in self.fixed:
            self._add("lookup", deps, tuple(outputs[0].shape)).entries = inputs[1].shape[0]
        elif func is F.embedding_bag and inputs[0] not in self.fixed:
            self._add("lookup", deps, (inputs[0].numel(), outputs[0].shape[-1])).entries = inputs[1].shape[0]
        elif name in _PAIRS and self.module not in self.norms and len(inputs) == 2:
            a, b = inputs
            live = a not in self.fixed and b not in self.fixed
            if live and a.shape == b.shape and a.is_floating_point() and b.is_floating_point():
                self._add("add", deps, tuple(a.shape))

    def _after(
        self,
        func: Any,
        name: str,
        args: Any,
        kwargs: dict[str, Any],
        inputs: list[Tensor],
        outputs: list[Tensor],
        trails: list[TensorOrigin],
    ) -> TensorOrigin:
        """The trail of what a call returns, but for what it depends on."""
        if func is F.embedding:
            self.streams += 1
            return TensorOrigin(stream=self.streams)
        if func in PRODUCTS:
            return TensorOrigin(stream=_factors(name, trails)[0].stream)
        stream = next((r.stream for t, r in zip(inputs, trails, strict=True) if r.stream and t.is_floating_point()), 0)
        if name in _JOIN:
            return _joined(args, kwargs, inputs, trails, stream)
        most = max((t.numel() for t in inputs), default=0)
        full = [trail for t, trail in zip(inputs, trails, strict=True) if t.numel() == most]
        copies = gcd(*(trail.copies for trail in full)) if full else 1
        cached = max((trail.cached for trail in full), default=0)
        if outputs and most:
            copies *= max(1, outputs[0].numel() // most)
        if _in_place(name) and trails and trails[0].cached:
            cached = trails[0].cached - max((t.shape[-2] for t in inputs[1:] if t.dim() > 2), default=0)
        return TensorOrigin(stream=stream, copies=max(1, copies), cached=cached)


def _in_place(name: str) -> bool:
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))


def _factors(name: str, trails: list[TensorOrigin]) -> tuple[TensorOrigin, TensorOrigin]:
    """Trails of the left and the right factor of a product."""
    pair = trails[1:3] if name in _ADDED_FIRST else trails[:2]
    pair = pair[::-1] if name == "__rmatmul__" else pair
    left, right = [*pair, _NONE, _NONE][:2]
    return left, right


def _joined(
    args: Any, kwargs: dict[str, Any], inputs: list[Tensor], trails: list[TensorOrigin], stream: int
) -> TensorOrigin:
    """Tensors one after another: cached tokens, then new ones; or halves of the same tokens."""
    dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
    parts = [(t, trail) for t, trail in zip(inputs, trails, strict=True) if t.numel()]
    fresh = [trail.copies for _, trail in parts if not trail.cached] or [trail.copies for _, trail in parts]
    dim = min(dim, 0) if parts and dim >= parts[0][0].dim() else dim
    held = [min(trail.cached, t.shape[dim]) for t, trail in parts if t.dim() > 1]
    along = any(trail.cached >= t.shape[dim] > 0 for t, trail in parts if trail.cached and t.dim() > 1)
    if len(parts) > 1 and all(t is parts[0][0] for t, _ in parts):
        fresh = [len(parts) * parts[0][1].copies]
    first = [trail.stream for _, trail in parts if trail.stream and not trail.cached]
    cached = sum(held) if along else max((trail.cached for _, trail in parts), default=0)
    return TensorOrigin(stream=first[0] if first else stream, copies=max(1, gcd(*fresh)), cached=cached)


def _rows(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """What work is done on, with the axis that is normalized last."""
    if name in ("batch_norm", "group_norm", "instance_norm") and len(shape) > 1:
        return (shape[0], *shape[2:], shape[1])
    return shape


def _causal(product: Product, args: Any, kwargs: dict[str, Any], inputs: list[Tensor]) -> bool | None:
    """Whether later keys are hidden, as far as the call and its values say."""
    meta = bool(inputs) and inputs[0].is_meta
    if product.kind == "multihead attention":
        return bool(kwargs.get("is_causal")) or product.causal or (None if meta else False)
    if product.kind != "attention":
        return product.causal
    mask = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
    if product.causal or not (meta and isinstance(mask, Tensor)):
        return product.causal if product.causal or inputs[0].shape[-2] > 1 else None
    return None


class Shapes(TorchFunctionMode):
    """Lets models run on the meta device where they ask for values: they are told that all is as it usually is.

    A question is answered with yes (all tokens are there, a mask is a causal one), but a value is never found among
    others (no token is padding); a bank of experts takes any type.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer instead of a tensor without values."""
        kwargs = kwargs or {}
        first = next((leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)), None)
        if first is not None and first.is_meta:
            if func in GROUPED:
                named = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
                return first.new_empty(first.shape[0], named[1].shape[-1])
            if func in (Tensor.__bool__, Tensor.item) and first.dtype == torch.bool:
                return True
            if func is Tensor.__contains__:
                return False
        return func(*args, **kwargs)
