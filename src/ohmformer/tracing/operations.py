"""From what a dry run saw to the operations of a workload, in order; layers and stages come later (`nn.stages`).

Shapes: M input vectors, I inputs and O outputs of a product, G matrices in a bank, E experts; `...` are axes of samples
and heads, heads last.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ohmformer.capture.product import Product
from ohmformer.capture.pytorch_mha import check_supported
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import Rule
from ohmformer.tracing.head_count import counts
from ohmformer.tracing.recorder import Event, Trail
from ohmformer.workload.spec import DynamicMatMul, Elementwise, Lookup, Norm, Op, Softmax, StaticMatMul

Role = Literal["static", "key", "value", "other"]


@dataclass(eq=False)
class Draft:
    """An operation without layer and stage.

    Attributes:
        op: the operation.
        role: a product with weights, of attention (Q K or P V), or other work.
        bit: what depends on it has this bit.
        deps: what it depends on.
        blocks: the modules at work, with the number of their call, outermost first.
    """

    op: Op
    role: Role
    bit: int
    deps: int
    blocks: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Pass:
    """What is known of the forward pass before it is looked at.

    Attributes:
        samples: candidates for how many there are, the likeliest first.
        context: tokens in the cache.
        causal: what attention is taken for where neither its call nor its module says.
        decode: it makes one token.
        tokens: new tokens of each sample, where its arguments say it.
    """

    samples: tuple[int, ...]
    context: int
    causal: bool
    decode: bool
    tokens: int | None = None


class Writer:
    """Turns events into drafts."""

    def __init__(self, model: nn.Module, rules: tuple[tuple[str, Rule], ...], asked: Pass) -> None:
        self.modules, self.parameters = dict(model.named_modules()), dict(model.named_parameters())
        self.rules, self.asked = rules, asked
        self.matched: set[str] = set()
        self.stored: dict[tuple[object, ...], str] = {}
        self.used: set[tuple[object, ...]] = set()
        self.sites: dict[tuple[str, str], list[int]] = {}
        self.heads = 1

    def drafts(self, events: list[Event]) -> list[Draft]:
        """All operations, in order.

        Raises:
            BadInput: a product is not understood, or a rule matches nothing.
        """
        found = [draft for event in events for draft in self._event(event)]
        found = [draft for draft in found if draft.role == "static" or _any(draft.op)]
        for pattern, _ in self.rules:
            if pattern not in self.matched:
                raise BadInput(f"rules: {pattern!r} matches no module that multiplies; correct or remove it")
        return self._with_idle_experts(events, found)

    def _event(self, event: Event) -> Iterator[Draft]:
        if not isinstance(event.what, Product):
            yield self._other(event, event.what)
            return
        product, rule = event.what, self._rule(event.module)
        match product.kind:
            case "weights":
                yield from self._weights(event, product)
            case "multihead attention":
                yield from self._multihead(event, product, rule)
            case "attention":
                yield from self._fused(event, product, rule)
            case "unknown":
                if not rule.digital:
                    raise BadInput(f"{_place(product)} is not understood; {_remedy('leave it out', product)}")
                warnings.warn(f"{_place(product)} is left out of the workload by rule", LeftOut, stacklevel=5)
            case _:
                yield from self._pair(event, product, rule)

    def _rule(self, *names: str) -> Rule:
        for pattern, rule in self.rules:
            if any(fnmatchcase(name, pattern) for name in names):
                self.matched.add(pattern)
                return rule
        return Rule()

    def _other(self, event: Event, kind: str) -> Draft:
        shape, name = event.shape, event.module
        width = shape[-1] if shape else 1
        rows = prod(shape) // max(1, width)
        op: Op = Elementwise(name, "", None, prod(shape), "add" if kind == "add" else "activation")
        match kind:
            case "softmax":
                op = Softmax(name, "", None, rows, width, shape[-3] if len(shape) > 3 else self.heads)
            case "normalisation":
                op = Norm(name, "", None, rows, width)
            case "lookup":
                op = Lookup(name, "", None, rows, width, event.entries)
        return Draft(op, "other", 0, event.deps, event.blocks)

    def _weights(self, event: Event, product: Product) -> Iterator[Draft]:
        """Products with a whole parameter, a part, the matrices of a bank, or those of the groups of a convolution."""
        assert product.matrix is not None
        assert product.left is not None
        assert product.origin is not None
        matrix, origin, left = product.matrix, product.origin, product.left.shape
        O, I = matrix.shape[-2:]
        G = prod(matrix.shape[:-2])
        lead = torch.broadcast_shapes(left[:-2], matrix.shape[:-2]) if matrix.dim() > 2 else left[:-2]
        vectors = prod(lead) * left[-2] // G
        name, index = self._name(product, matrix)
        if product.operation.endswith("grouped_mm") and matrix.is_meta:
            E, tokens = product.shapes[1][0], product.shapes[0][0]
            vectors = tokens // E + (index < tokens % E)
        for g in range(G):
            place = f"{name}#{g}" if G > 1 else name
            key = (product.weights, g, origin.storage_offset(), tuple(matrix.shape), origin.stride())
            op = self._ruled(self._static(place, key, vectors, I, O), event.module, name, place)
            yield Draft(op, "static", 1 << event.index, event.deps, event.blocks)

    def _static(self, name: str, key: tuple[object, ...], vectors: int, inputs: int, outputs: int) -> StaticMatMul:
        stored = self.stored.setdefault(key, name)
        shared = stored if key in self.used else ""
        self.used.add(key)
        return StaticMatMul(name, "", None, vectors, inputs, outputs, shared)

    def _name(self, product: Product, matrix: Tensor) -> tuple[str, int]:
        """The layer that owns the weights, and which part of a bank they are."""
        parameter = self.parameters[product.weights]
        owner, _, attribute = product.weights.rpartition(".")
        own = any(p is parameter for p in self.modules[product.module]._parameters.values())
        layer = product.module if own and attribute == "weight" else owner if attribute == "weight" else product.weights
        origin = matrix if product.origin is None else product.origin
        offset = int(origin.storage_offset()) - int(parameter.storage_offset())
        if _from_bank(parameter, matrix):
            index = offset // max(1, parameter.stride(0))
            return f"{layer}[{index}]", index
        return (layer if matrix.numel() == parameter.numel() else f"{layer}#{offset}"), 0

    def _ruled(self, op: Op, *names: str) -> Op:
        """The product, or what it is to the digital lanes where a rule keeps it there: one step per multiplication."""
        return Elementwise(op.name, "", None, op.macs, "add") if self._rule(*names).digital else op

    def _with_idle_experts(self, events: list[Event], drafts: list[Draft]) -> list[Draft]:
        """The drafts, with the matrices of banks that no token was routed to: they are stored all the same."""
        names = {draft.op.name for draft in drafts}
        banks: dict[str, tuple[Event, str]] = {}
        for event in events:
            product = event.what
            matrix = product.matrix if isinstance(product, Product) else None
            if isinstance(product, Product) and matrix is not None:
                layer, _, bank = self._name(product, matrix)[0].partition("[")
                if bank:
                    banks[product.weights] = event, layer
        for weights, (event, layer) in banks.items():
            parameter = self.parameters[weights]
            O, I = event.what.matrix.shape  # type: ignore[union-attr]
            at = max((n for n, draft in enumerate(drafts) if draft.bit == 1 << event.index), default=len(drafts) - 1)
            idle = [f"{layer}[{e}]" for e in range(len(parameter)) if f"{layer}[{e}]" not in names]
            drafts[at + 1 : at + 1] = [
                Draft(StaticMatMul(name, "", None, 0, I, O), "static", 1 << event.index, event.deps, event.blocks)
                for name in idle
                if not self._rule(event.module, name).digital
            ]
        return drafts

    def _multihead(self, event: Event, product: Product, rule: Rule) -> Iterator[Draft]:
        """PyTorch's own attention of query[M, B, E] on key[N, B, .] and value[N, B, .], which hides its products."""
        module, name = self.modules[product.module], product.module
        if not isinstance(module, nn.MultiheadAttention):
            raise BadInput(f"{_place(product)} is not understood; {_remedy('leave it out', product)}")
        if not rule.digital:
            check_supported(module, name)
        shapes = [s if len(s) == 3 else (s[0], 1, s[1]) for s in product.shapes]
        (M, B, E), (N, _, _) = shapes[:2]
        bit, deps, blocks = 1 << event.index, event.deps, event.blocks
        for n, (part, (tokens, _, width)) in enumerate(zip("qkv", shapes, strict=True)):
            op = self._static(f"{name}#{part}", (name, part), B * tokens, width, E)
            yield Draft(self._ruled(op, name, op.name), "static", bit << n, deps, blocks)
        across = (event.left.stream, event.left.deps) != (event.right.stream, event.right.deps)
        H, d = module.num_heads, module.head_dim
        common = (B, H, H, M, N, N)
        key = self._dynamic(event, f"{name}.K", "key", common, d, across)
        value = self._dynamic(event, f"{name}.V", "value", common, d, across)
        deps |= bit * 0b111
        yield Draft(self._ruled(key, name, key.name), "key", bit << 3, deps, blocks)
        yield Draft(Softmax(name, "", None, B * H * M, N, H), "other", 0, deps, blocks)
        yield Draft(self._ruled(value, name, value.name), "value", bit << 3, deps | bit << 3, blocks)
        op = self._static(f"{name}.out_proj", (name, "out_proj"), B * M, E, E)
        yield Draft(self._ruled(op, name, op.name), "static", bit << 4, deps | bit << 3, blocks)

    def _fused(self, event: Event, product: Product, rule: Rule) -> Iterator[Draft]:
        """Attention of query[..., M, d] on key[..., N, d] and value[..., N, e] in one call."""
        query, key, value = product.shapes[:3]
        batch, heads, kv_heads = counts(query, key, event.right, product, self.asked.samples)
        heads, M = self._unfolded(heads, query[-2], event.right)
        held = self._held(key[-2], event.right)
        common = (batch, heads, kv_heads, M, held, max(0, key[-2] - event.right.cached))
        name, bit = self._site(product, "attention"), 1 << event.index
        across = _across(event, key[-2])
        first = self._dynamic(event, f"{name}.K", "key", common, key[-1], across)
        second = self._dynamic(event, f"{name}.V", "value", common, value[-1], across)
        yield Draft(self._ruled(first, name, first.name), "key", bit, event.deps, event.blocks)
        softmax = Softmax(name, "", None, batch * heads * M, held, heads)
        yield Draft(softmax, "other", 0, event.deps | bit, event.blocks)
        yield Draft(self._ruled(second, name, second.name), "value", bit << 1, event.deps | bit, event.blocks)

    def _pair(self, event: Event, product: Product, rule: Rule) -> Iterator[Draft]:
        """A product of two activations that the model writes out."""
        role = product.role or {"attention.key": "key", "attention.value": "value"}.get(rule.on, "")
        if product.left is None or product.right is None:
            if not rule.digital:
                raise BadInput(f"{_place(product)} is not understood; {_remedy('leave it out', product)}")
            warnings.warn(f"{_place(product)} is left out of the workload by rule", LeftOut, stacklevel=6)
            return
        left, right, trail = product.left.shape, product.right.shape, event.right
        turned = rule.write == "left" and not product.role  # otherwise known which one is K^T or V
        if turned:
            left, right, trail = right, left, event.left
        if not role:
            alone = product.kind == "computed weights" or len(left) == len(right) == 2
            if not alone and not rule.digital:
                raise BadInput(
                    f"{_place(product)} multiplies two activations and is not understood; "
                    f"{_remedy('keep it digital', product)}, or say what it is with "
                    f"rules={{{product.module!r}: Rule(on='attention.key')}}"
                )
            macs = prod(torch.broadcast_shapes(left[:-2], right[:-2])) * left[-2] * left[-1] * right[-2]
            op: Op = Elementwise(product.module, "", None, macs, "add")
            yield Draft(op, "static", 1 << event.index, event.deps, event.blocks)
            return
        tokens = right[-2] if role == "key" else right[-1]
        width = right[-1] if role == "key" else right[-2]
        batch, heads, kv_heads = counts(left, right, trail, product, self.asked.samples)
        held = self._held(tokens, trail)
        heads, M = self._unfolded(heads, left[-2], trail)
        common = (batch, heads, kv_heads, M, held, max(0, tokens - trail.cached))
        name = f"{self._site(product, role)}.{'K' if role == 'key' else 'V'}"
        op = self._dynamic(event, name, "key" if role == "key" else "value", common, width, _across(event, tokens))
        self.heads = heads
        ruled = self._ruled(replace(op, turned=turned), product.module, name)
        yield Draft(ruled, "key" if role == "key" else "value", 1 << event.index, event.deps, event.blocks)

    def _site(self, product: Product, role: str) -> str:
        """What `convert` calls this place of a module: its name, then with `#1`, `#2` ..."""
        places = self.sites.setdefault((product.module, role), [])
        if product.position not in places:
            places.append(product.position)
        n = places.index(product.position)
        return product.module if n == 0 else f"{product.module}#{n}"

    def _dynamic(
        self,
        event: Event,
        name: str,
        role: Literal["key", "value"],
        common: tuple[int, int, int, int, int, int],
        width: int,
        across: bool,
    ) -> DynamicMatMul:
        batch, heads, kv_heads, queries, held, written = common
        inputs, outputs = (width, held) if role == "key" else (held, width)
        return DynamicMatMul(
            name,
            "",
            None,
            "attention.key" if role == "key" else "attention.value",
            batch,
            heads,
            kv_heads,
            queries,
            inputs,
            outputs,
            written,
            causal=not across and self._causal(event),
            across=across,
        )

    def _causal(self, event: Event) -> bool:
        """Whether later keys are hidden: by the call, the values, the module, or else what the pass is taken for."""
        if self.asked.decode or event.right.cached:
            return True
        product = event.what
        written_out = isinstance(product, Product) and product.kind not in ("attention", "multihead attention")
        known = product.causal if isinstance(product, Product) and written_out else event.causal
        if known is not None:
            return known
        module = self.modules[event.module]
        said = [getattr(module, name, None) for name in ("is_causal", "is_decoder")]
        return any(word is True for word in said) if any(isinstance(word, bool) for word in said) else self.asked.causal

    def _held(self, tokens: int, trail: Trail) -> int:
        """Tokens that are held: not the empty slots of a cache of fixed size."""
        fresh = tokens - trail.cached
        return min(tokens, self.asked.context + fresh) if fresh > 0 and trail.cached else tokens

    def _unfolded(self, heads: int, queries: int, trail: Trail) -> tuple[int, int]:
        """Heads and queries, where a model asks a cache for the queries of a group of heads one after another."""
        M = self.asked.tokens
        folded = M is not None and trail.cached and queries > M and queries % M == 0
        return (heads * queries // M, M) if folded and M is not None else (heads, queries)


class LeftOut(UserWarning):
    """A product that nobody could count is missing in a workload, because a rule says so."""


def _from_bank(parameter: Any, matrix: Tensor) -> bool:
    return parameter.dim() == 3 and matrix.dim() == 2 and matrix.numel() == parameter[0].numel()


def _any(op: Op) -> bool:
    """Whether there is anything to do."""
    match op:
        case Elementwise():
            return op.elements > 0
        case Norm() | Lookup():
            return op.vectors > 0
        case Softmax():
            return op.rows > 0
    return True


def _across(event: Event, tokens: int) -> bool:
    """Whether keys are those of other tokens than the queries: all of them from a cache, or from another input."""
    if event.right.cached >= tokens:
        return True
    return event.right.stream not in (0, event.left.stream)


def _place(product: Product) -> str:
    shapes = " with ".join(str(shape) for shape in product.shapes[:2])
    return f"{product.module or 'the model itself'}: {product.operation} on {shapes}"


def _remedy(what: str, product: Product) -> str:
    return f"{what} with rules={{{product.module!r}: None}}"
