"""`TraceRecorder`: a recorder that also follows the origin of each tensor, as `trace` needs it.

It finds on which earlier steps each product depends, and how many tokens of its right factor come from a KV cache. It
works on the meta device too, where tensors have shapes only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from ohmformer.capture.contraction.grouped_matmul import GROUPED
from ohmformer.capture.inputs import tensors_in
from ohmformer.capture.product import PassRecord, Product
from ohmformer.capture.recorder import PRODUCTS, Recorder
from ohmformer.capture.torch_private import tree_leaves

_JOIN = {"cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"}
_ADDEND_FIRST = {"baddbmm", "addmm", "addbmm", "addmv", "addr"}
"""Functions whose first argument is added to the product."""
_BINARY = {"add", "add_", "__add__", "__iadd__", "__radd__", "mul", "mul_", "__mul__", "__imul__", "__rmul__"}
"""Functions that add or multiply two tensors value by value."""

OtherWork = Literal["softmax", "normalization", "activation", "add", "lookup"]


@dataclass(frozen=True)
class TensorOrigin:
    """The origin of a tensor.

    Attributes:
        deps: bits of the events on which it depends.
        stream: number of the token stream that it belongs to; each model input and each embedding begins one. 0: none.
        copies: equal copies of each value, made by an expansion.
        cached: tokens that come from the KV cache.
    """

    deps: int = 0
    stream: int = 0
    copies: int = 1
    cached: int = 0


_NO_ORIGIN = TensorOrigin()


@dataclass(eq=False)
class Event:
    """One step of a forward pass: a product, or other work.

    Attributes:
        index: index of the first of its five bits; multi-head attention has five products, all other steps fewer.
        work: the product, or the kind of other work.
        module: name of the innermost module whose `forward` runs.
        blocks: (name, number of its call) of all modules whose `forward` runs, outermost first.
        deps: bits of the events on which it depends.
        shape: shape of the tensor that other work computes.
        entries: rows of the table of a lookup.
        left: origin of the left factor (of the queries, for fused attention).
        right: origin of the right factor (of the keys).
        causal: True if the call hides later keys; None if neither its arguments nor its values show it.
    """

    index: int
    work: Product | OtherWork
    module: str
    blocks: tuple[tuple[str, int], ...]
    deps: int
    shape: tuple[int, ...] = ()
    entries: int = 0
    left: TensorOrigin = _NO_ORIGIN
    right: TensorOrigin = _NO_ORIGIN
    causal: bool | None = None

    @property
    def bits(self) -> int:
        """All bits of the event; a step that depends on it has one of these in its `deps`."""
        return 0b11111 << self.index


class TraceRecorder(Recorder):
    """Records a forward pass as a sequence of events with their dependencies.

    Attributes:
        events: all events so far, in order.
        origins: tensor -> its origin.
        streams: number of token streams so far.
        taken: numbers of products and of digital steps of the record that are events already.
        norms: names of the normalization layers.
    """

    def __init__(self, model: nn.Module, record: PassRecord, cache: tuple[Tensor, ...] = ()) -> None:
        super().__init__(model, record)
        self.events: list[Event] = []
        self.origins = WeakIdKeyDictionary()
        self.streams = 0
        self.taken = (0, 0)
        self.norms = {n for n, m in model.named_modules() if "norm" in type(m).__name__.lower()}
        for leaf in cache:
            self.origins[leaf] = TensorOrigin(cached=leaf.shape[-2])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one call of a function, and record its events and the origin of its output."""
        self.flush()
        arguments = args[:1] if func is Tensor.__deepcopy__ else (args, kwargs or {})
        inputs = tensors_in(arguments)
        output = super().__torch_function__(func, types, args, kwargs)
        outputs = tensors_in(output)
        origins = [self._origin(t) for t in inputs]
        deps = 0
        for origin in origins:
            deps |= origin.deps
        before = len(self.events)
        self._add_events(func, args, kwargs or {}, inputs, outputs, origins, deps)
        for event in self.events[before:]:
            deps |= event.bits if isinstance(event.work, Product) else 0
        name = getattr(func, "__name__", "")
        after = replace(self._origin_of_output(func, name, args, kwargs or {}, inputs, outputs, origins), deps=deps)
        changed = inputs[:1] if name == "__setitem__" else outputs
        for leaf in changed:
            if leaf not in self.independent or deps:
                self.origins[leaf] = after
        return output

    def flush(self) -> None:
        """Make events of what was recorded outside of function calls: normalization layers, and kernels."""
        products, digital = self.taken
        for step in self.record.digital[digital:]:
            self._add_event(step.kind, self._last_deps(), step.shape, module=step.module)
        for product in self.record.products[products:]:
            self._add_event(product, self._last_deps(), module=product.module)
        self.taken = (len(self.record.products), len(self.record.digital))

    def _last_deps(self) -> int:
        return self.events[-1].deps | self.events[-1].bits if self.events else 0

    def _add_event(
        self, work: Product | OtherWork, deps: int, shape: tuple[int, ...] = (), *, module: str | None = None
    ) -> Event:
        index = self.events[-1].index + 5 if self.events else 0
        name = self.module if module is None else module
        names = list(self.record.stack)
        if name not in names:
            names.append(name)
        blocks = tuple((block, self.record.calls[block]) for block in names)
        self.events.append(Event(index, work, name, blocks, deps, shape))
        return self.events[-1]

    def _origin(self, t: Tensor) -> TensorOrigin:
        """The origin of a tensor; an activation of unknown origin is an input of the model and begins a stream."""
        origin: TensorOrigin | None = self.origins.get(t)
        if origin is None and t not in self.independent and not isinstance(t, nn.Parameter):
            self.streams += 1
            origin = self.origins[t] = TensorOrigin(stream=self.streams)
        return origin or _NO_ORIGIN

    def _add_events(
        self,
        func: Any,
        args: Any,
        kwargs: dict[str, Any],
        inputs: list[Tensor],
        outputs: list[Tensor],
        origins: list[TensorOrigin],
        deps: int,
    ) -> None:
        """Add the products of a call and its other work to the events."""
        products, digital = self.taken
        name = getattr(func, "__name__", "")
        for product in self.record.products[products:]:
            event = self._add_event(product, deps)
            event.left, event.right = _origins_of_factors(name, origins)
            event.causal = _is_causal(product, args, kwargs, inputs)
        if func not in PRODUCTS:
            for step in self.record.digital[digital:]:
                self._add_event(step.kind, deps, _normalized_last(name, step.shape))
        self.taken = (len(self.record.products), len(self.record.digital))
        if func is F.embedding and inputs[0] not in self.independent:
            self._add_event("lookup", deps, tuple(outputs[0].shape)).entries = inputs[1].shape[0]
        elif func is F.embedding_bag and inputs[0] not in self.independent:
            self._add_event("lookup", deps, (inputs[0].numel(), outputs[0].shape[-1])).entries = inputs[1].shape[0]
        elif name in _BINARY and self.module not in self.norms and len(inputs) == 2:
            a, b = inputs
            activations = a not in self.independent and b not in self.independent
            if activations and a.shape == b.shape and a.is_floating_point() and b.is_floating_point():
                self._add_event("add", deps, tuple(a.shape))

    def _origin_of_output(
        self,
        func: Any,
        name: str,
        args: Any,
        kwargs: dict[str, Any],
        inputs: list[Tensor],
        outputs: list[Tensor],
        origins: list[TensorOrigin],
    ) -> TensorOrigin:
        """The origin of the output of a call, without its `deps`."""
        if func is F.embedding:
            self.streams += 1
            return TensorOrigin(stream=self.streams)
        if func in PRODUCTS:
            return TensorOrigin(stream=_origins_of_factors(name, origins)[0].stream)
        stream = next((r.stream for t, r in zip(inputs, origins, strict=True) if r.stream and t.is_floating_point()), 0)
        if name in _JOIN:
            return _origin_of_joined(args, kwargs, inputs, origins, stream)
        most = max((t.numel() for t in inputs), default=0)
        largest = [origin for t, origin in zip(inputs, origins, strict=True) if t.numel() == most]
        copies = gcd(*(origin.copies for origin in largest)) if largest else 1
        cached = max((origin.cached for origin in largest), default=0)
        if outputs and most:
            copies *= max(1, outputs[0].numel() // most)
        if _is_in_place(name) and origins and origins[0].cached:
            cached = origins[0].cached - max((t.shape[-2] for t in inputs[1:] if t.dim() > 2), default=0)
        return TensorOrigin(stream=stream, copies=max(1, copies), cached=cached)


def _is_in_place(name: str) -> bool:
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))


def _origins_of_factors(name: str, origins: list[TensorOrigin]) -> tuple[TensorOrigin, TensorOrigin]:
    """Origins of the left and the right factor of a product."""
    pair = origins[1:3] if name in _ADDEND_FIRST else origins[:2]
    pair = pair[::-1] if name == "__rmatmul__" else pair
    left, right = [*pair, _NO_ORIGIN, _NO_ORIGIN][:2]
    return left, right


def _origin_of_joined(
    args: Any, kwargs: dict[str, Any], inputs: list[Tensor], origins: list[TensorOrigin], stream: int
) -> TensorOrigin:
    """The origin of a concatenation: of cached tokens with new ones, or of parts of the same tokens."""
    dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
    parts = [(t, origin) for t, origin in zip(inputs, origins, strict=True) if t.numel()]
    new_copies = [origin.copies for _, origin in parts if not origin.cached] or [origin.copies for _, origin in parts]
    dim = min(dim, 0) if parts and dim >= parts[0][0].dim() else dim
    cached_of_parts = [min(origin.cached, t.shape[dim]) for t, origin in parts if t.dim() > 1]
    along = any(origin.cached >= t.shape[dim] > 0 for t, origin in parts if origin.cached and t.dim() > 1)
    if len(parts) > 1 and all(t is parts[0][0] for t, _ in parts):
        new_copies = [len(parts) * parts[0][1].copies]
    new_streams = [origin.stream for _, origin in parts if origin.stream and not origin.cached]
    cached = sum(cached_of_parts) if along else max((origin.cached for _, origin in parts), default=0)
    stream = new_streams[0] if new_streams else stream
    return TensorOrigin(stream=stream, copies=max(1, gcd(*new_copies)), cached=cached)


def _normalized_last(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the output of a function, with the axis last that a normalization treats as channels."""
    if name in ("batch_norm", "group_norm", "instance_norm") and len(shape) > 1:
        return (shape[0], *shape[2:], shape[1])
    return shape


def _is_causal(product: Product, args: Any, kwargs: dict[str, Any], inputs: list[Tensor]) -> bool | None:
    """True if a call hides later keys; None if neither its arguments nor its values show it."""
    meta = bool(inputs) and inputs[0].is_meta
    if product.kind == "multihead attention":
        return bool(kwargs.get("is_causal")) or product.causal or (None if meta else False)
    if product.kind != "attention":
        return product.causal
    mask = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
    if product.causal or not (meta and isinstance(mask, Tensor)):
        return product.causal if product.causal or inputs[0].shape[-2] > 1 else None
    return None


class AssumedValues(TorchFunctionMode):
    """Answers for tensors without values, so that models run on the meta device.

    A boolean is taken as True (all tokens are present, a mask is causal). A tensor is taken to contain no particular
    value (no token is padding). A grouped product takes factors of any type.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer for a tensor on the meta device, or run the call."""
        kwargs = kwargs or {}
        first = next((leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)), None)
        if first is not None and first.is_meta:
            if func in GROUPED:
                tensors = tensors_in((args, kwargs))
                return first.new_empty(first.shape[0], tensors[1].shape[-1])
            if func in (Tensor.__bool__, Tensor.item) and first.dtype == torch.bool:
                return True
            if func is Tensor.__contains__:
                return False
        return func(*args, **kwargs)
