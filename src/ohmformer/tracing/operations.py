"""`OperationBuilder`: makes the operations of a workload from recorded events; `tracing.stages` adds their stages.

Shapes: M input vectors, I inputs and O outputs of a product, G matrices in a bank, E experts; `...` are axes of samples
and heads, heads last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import torch
from torch import nn

from ohmformer.capture.product import Product
from ohmformer.capture.table import ASKED_FOR
from ohmformer.hardware.operand_names import kv_name, kv_rule_names, weight_name, weight_rule_names
from ohmformer.hardware.rules import OrderedRules, RecordedRules, Rule, RuleBook
from ohmformer.routing.product_handler import PairRole, ProductHandler, unseen_layers
from ohmformer.routing.refusals import describe, not_counted
from ohmformer.tracing.head_count import count_heads
from ohmformer.tracing.recorder import Event, TensorOrigin
from ohmformer.tracing.rule_checks import check_clips, check_rotation
from ohmformer.workload.spec import AttentionRole, DynamicMatMul, Elementwise, Lookup, Norm, Op, Softmax, StaticMatMul

_ROLES: dict[PairRole, AttentionRole] = {"key": "attention.key", "value": "attention.value"}
Role = Literal["static", "key", "value", "other"]


@dataclass(eq=False)
class OpDraft:
    """An operation that has no layer and stage yet.

    Attributes:
        op: the operation.
        role: `static` (product with weights), `key` (Q K^T), `value` (P V) or `other` (no product).
        bit: bit of the operation; the `deps` of operations that depend on it have it.
        deps: bits of the operations on which it depends.
        blocks: (name, number of its call) of the modules whose `forward` ran, outermost first.
        product: the product on which `op` is based, if rules keep it digital; None if `op` is the product itself.
    """

    op: Op
    role: Role
    bit: int
    deps: int
    blocks: tuple[tuple[str, int], ...]
    product: Op | None = None


@dataclass(frozen=True)
class PassInfo:
    """Facts about the forward pass that follow from the arguments of `trace`.

    Attributes:
        samples: possible numbers of samples, the likeliest first.
        cached_tokens: tokens in the KV cache before the pass.
        causal: True if attention counts as causal where neither its call nor its module shows it.
        decode: True if the pass makes one token.
        tokens: new tokens of each sample; None if its arguments do not show it.
    """

    samples: tuple[int, ...]
    cached_tokens: int
    causal: bool
    decode: bool
    tokens: int | None = None


@dataclass(frozen=True)
class Sizes:
    """The sizes that Q K^T and P V of one attention have in common.

    Attributes:
        batch: samples, or windows of all samples.
        heads: heads of the queries.
        kv_heads: heads of the keys and values.
        queries: queries of each head.
        tokens: tokens whose keys and values are stored.
        written: new ones of these, which this pass writes.
        across: True if keys and values belong to other tokens than the queries, as in cross attention.
    """

    batch: int
    heads: int
    kv_heads: int
    queries: int
    tokens: int
    written: int
    across: bool


class OperationBuilder(ProductHandler[Event, list[OpDraft]]):
    """Makes operations of events.

    Attributes:
        info: facts about the pass.
        left_out: one line for each product that is not understood and that a rule leaves out.
        left_over: (module, reason) of each product that stays digital although no rule requires it.
        stored: key of a matrix of weights -> name of the operation that stores it.
        heads: heads of the last attention, for a softmax whose shape does not show them.
    """

    def __init__(self, model: nn.Module, rules: OrderedRules, info: PassInfo) -> None:
        super().__init__(model, RecordedRules(RuleBook(rules)))
        self.info = info
        self.left_out: list[str] = []
        self.left_over: list[tuple[str, str]] = []
        self.stored: dict[tuple[object, ...], str] = {}
        self.heads = 1

    def drafts(self, events: list[Event]) -> list[OpDraft]:
        """All operations, in order.

        Raises:
            BadInput: a product is not understood, or a rule matches nothing.
        """
        drafts: list[OpDraft] = []
        for event in events:
            work = event.work
            found = self.handle(work, event) if isinstance(work, Product) else [self._other(event, work)]
            check_clips(self.rules, work, (draft.product or draft.op for draft in found))
            drafts += found
        drafts = [draft for draft in drafts if draft.role == "static" or _has_work(draft.op)]
        drafts = self._with_idle_experts(events, drafts)
        products = (event.work for event in events if isinstance(event.work, Product))
        unseen = tuple(unseen_layers(self.weights_of.modules, products))
        for name in unseen:
            self.rules.match_kv((name,))  # a rule may be meant for a layer that this sample does not reach
        check_rotation(self.rules, (draft.product or draft.op for draft in drafts), unseen)
        self.rules.check()
        return drafts

    def _other(self, event: Event, kind: str) -> OpDraft:
        """The operation of an event that is not a product."""
        shape, name = event.shape, event.module
        width = shape[-1] if shape else 1
        rows = prod(shape) // max(1, width)
        op: Op = Elementwise(name, "", None, prod(shape), "add" if kind == "add" else "activation")
        match kind:
            case "softmax":
                op = Softmax(name, "", None, rows, width, shape[-3] if len(shape) > 3 else self.heads)
            case "normalization":
                op = Norm(name, "", None, rows, width)
            case "lookup":
                op = Lookup(name, "", None, rows, width, event.entries)
        return OpDraft(op, "other", 0, event.deps, event.blocks)

    def weights(self, product: Product, given: Event) -> list[OpDraft]:
        """The operations for a product with weights: one for each group of a convolution, otherwise one."""
        assert product.matrix is not None
        assert product.left is not None
        assert product.origin is not None
        matrix, origin, left = product.matrix, product.origin, product.left.shape
        O, I = matrix.shape[-2:]
        G = prod(matrix.shape[:-2])
        lead = torch.broadcast_shapes(left[:-2], matrix.shape[:-2]) if matrix.dim() > 2 else left[:-2]
        vectors = prod(lead) * left[-2] // G
        named = self.weights_of.matrix(product)
        if product.operation.endswith("grouped_mm") and matrix.is_meta:
            E, tokens = product.shapes[1][0], product.shapes[0][0]
            vectors = tokens // E + ((named.index or 0) < tokens % E)
        digital = self.rules.rule(weight_rule_names(named.name)).digital
        found = []
        for g in range(G):
            own = StaticMatMul(named.name, "", None, vectors, I, O)
            if G > 1:
                names = weight_rule_names(named.name)
                own = replace(own, name=weight_name(named.name, part=g), rule_names=names)
            key = (product.weights, g, origin.storage_offset(), tuple(matrix.shape), origin.stride())
            op = _in_lanes(own) if digital else self._stored(own, key)
            kept = own if digital else None
            found.append(OpDraft(op, "static", 1 << given.index, given.deps, given.blocks, kept))
        return found

    def _stored(self, op: StaticMatMul, key: tuple[object, ...]) -> StaticMatMul:
        """The operation; if its weights are stored already, with the name of the operation that stores them."""
        if key in self.stored:
            return replace(op, shared_with=self.stored[key])
        self.stored[key] = op.name
        return op

    def _with_idle_experts(self, events: list[Event], drafts: list[OpDraft]) -> list[OpDraft]:
        """The drafts, with an operation for each expert to which no token was routed: its weights are stored, too."""
        names = {draft.op.name for draft in drafts}
        banks: dict[str, tuple[Event, Product]] = {}
        for event in events:
            if isinstance(event.work, Product) and event.work.kind == "weights" and self.weights_of.bank(event.work):
                banks[event.work.weights] = event, event.work
        for event, product in banks.values():
            assert product.matrix is not None
            O, I = product.matrix.shape
            last = max((n for n, draft in enumerate(drafts) if draft.bit == 1 << event.index), default=len(drafts) - 1)
            idle = [matrix.name for matrix in self.weights_of.bank(product) if matrix.name not in names]
            drafts[last + 1 : last + 1] = [
                OpDraft(StaticMatMul(name, "", None, 0, I, O), "static", 1 << event.index, event.deps, event.blocks)
                for name in idle
                if not self.rules.rule(weight_rule_names(name)).digital
            ]
        return drafts

    def multihead(self, product: Product, given: Event, module: nn.MultiheadAttention) -> list[OpDraft]:
        """The operations of `nn.MultiheadAttention` on query[M, B, E], key[N, B, .] and value[N, B, .]."""
        return self._multihead_drafts(product, given, module, digital=False)

    def _multihead_drafts(
        self, product: Product, event: Event, module: nn.MultiheadAttention, *, digital: bool
    ) -> list[OpDraft]:
        name, site = product.module, self.site(product, "attention")
        shapes = [s if len(s) == 3 else (s[0], 1, s[1]) for s in product.shapes]
        (M, B, E), (N, _, _) = shapes[:2]
        bit, deps, blocks = 1 << event.index, event.deps, event.blocks
        H, d, last = module.num_heads, module.head_dim, f"{name}.out_proj".lstrip(".")
        across = (event.left.stream, event.left.deps) != (event.right.stream, event.right.deps)
        sizes = Sizes(batch=B, heads=H, kv_heads=H, queries=M, tokens=N, written=N, across=across)
        plain: list[StaticMatMul | DynamicMatMul] = []
        for part, (tokens, _, width) in zip("qkv", shapes, strict=True):
            plain.append(StaticMatMul(weight_name(name, part=part), "", None, B * tokens, width, E))
        plain += [self._kv(event, site, "key", sizes, d), self._kv(event, site, "value", sizes, d)]
        plain.append(StaticMatMul(last, "", None, B * M, E, E))
        # A rule that keeps the whole call digital comes before those for its operands.
        *projections, key, value, out = (_in_lanes(op) if digital else self._ruled(op) for op in plain)
        found = [OpDraft(op, "static", bit << n, deps, blocks, plain[n]) for n, op in enumerate(projections)]
        deps |= bit * 0b111
        found.append(OpDraft(key, "key", bit << 3, deps, blocks, plain[3]))
        found.append(OpDraft(Softmax(name, "", None, B * H * M, N, H), "other", 0, deps, blocks))
        found.append(OpDraft(value, "value", bit << 3, deps | bit << 3, blocks, plain[4]))
        found.append(OpDraft(out, "static", bit << 4, deps | bit << 3, blocks, plain[5]))
        return found

    def attention(self, product: Product, given: Event) -> list[OpDraft]:
        """The operations of fused attention on query[..., M, d], key[..., N, d] and value[..., N, e]."""
        query, key, value = product.shapes[:3]
        batch, heads, kv_heads = count_heads(query, key, given.right, product, self.info.samples)
        heads, M = self._unfolded(heads, query[-2], given.right)
        sizes = self._sizes(given, given.right, batch, heads, kv_heads, M, key[-2])
        name, bit = self.site(product, "attention"), 1 << given.index
        first, second = self._kv(given, name, "key", sizes, key[-1]), self._kv(given, name, "value", sizes, value[-1])
        softmax = Softmax(name, "", None, batch * heads * M, sizes.tokens, heads)
        return [
            OpDraft(self._ruled(first), "key", bit, given.deps, given.blocks, first),
            OpDraft(softmax, "other", 0, given.deps | bit, given.blocks),
            OpDraft(self._ruled(second), "value", bit << 1, given.deps | bit, given.blocks, second),
        ]

    def pair(self, product: Product, given: Event, role: PairRole) -> list[OpDraft]:
        """The operation of Q K^T or P V that the model computes as a product of two activations."""
        name = kv_name(self.site(product, role), role)
        _, rule = self.rules.match_kv(kv_rule_names(name))
        turned = rule.write == "left" and not product.role  # otherwise known which one is K^T or V
        op = self._pair_op(product, given, role, name, turned=turned)
        return [OpDraft(_in_lanes(op) if rule.digital else op, role, 1 << given.index, given.deps, given.blocks, op)]

    def _pair_op(self, product: Product, given: Event, role: PairRole, name: str, *, turned: bool) -> DynamicMatMul:
        assert product.left is not None
        assert product.right is not None
        left, right, origin = product.left.shape, product.right.shape, given.right
        if turned:
            left, right, origin = right, left, given.left
        tokens, width = (right[-2], right[-1]) if role == "key" else (right[-1], right[-2])
        batch, heads, kv_heads = count_heads(left, right, origin, product, self.info.samples)
        heads, M = self._unfolded(heads, left[-2], origin)
        sizes = self._sizes(given, origin, batch, heads, kv_heads, M, tokens)
        self.heads = heads
        return replace(self._kv(given, name.rpartition(".")[0], role, sizes, width), turned=turned)

    def digital(self, product: Product, given: Event, role: PairRole | None, reason: str) -> list[OpDraft]:
        """The digital operations of a product; [] if its size is not known."""
        module = self.weights_of.modules[product.module]
        if role is None and reason not in ASKED_FOR:
            self.left_over.append((product.module, reason))
        if product.kind == "multihead attention" and isinstance(module, nn.MultiheadAttention):
            return self._multihead_drafts(product, given, module, digital=True)
        if product.left is None or product.right is None:
            self.left_out.append(f"{describe(product)} is left out of the workload by rule")
            return []
        if role is not None:
            name = kv_name(self.site(product, role), role)
            pair = self._pair_op(product, given, role, name, turned=False)
            return [OpDraft(_in_lanes(pair), role, 1 << given.index, given.deps, given.blocks, pair)]
        left, right = product.left.shape, product.right.shape
        macs = prod(torch.broadcast_shapes(left[:-2], right[:-2])) * left[-2] * left[-1] * right[-2]
        op = Elementwise(product.module, "", None, macs, "add")
        return [OpDraft(op, "static", 1 << given.index, given.deps, given.blocks)]

    def unknown(self, product: Product, given: Event, rule: Rule) -> list[OpDraft]:
        """No operation, if a rule keeps the product digital.

        Raises:
            BadInput: no rule does.
        """
        if not rule.digital:
            raise not_counted(product)
        self.left_out.append(f"{describe(product)} is left out of the workload by rule")
        return []

    def across_samples(self, product: Product, given: Event) -> bool:
        """True if both factors are matrices, so that neither has an axis for samples."""
        assert product.left is not None
        assert product.right is not None
        return len(product.left.shape) == len(product.right.shape) == 2

    def _sizes(
        self, event: Event, origin: TensorOrigin, batch: int, heads: int, kv_heads: int, queries: int, tokens: int
    ) -> Sizes:
        return Sizes(
            batch=batch,
            heads=heads,
            kv_heads=kv_heads,
            queries=queries,
            tokens=self._stored_tokens(tokens, origin),
            written=max(0, tokens - origin.cached),
            across=_is_across(event, tokens),
        )

    def _kv(self, event: Event, site: str, role: PairRole, sizes: Sizes, width: int) -> DynamicMatMul:
        """The operation Q K^T or P V of one attention; `width` is the number of features of a head."""
        return DynamicMatMul(
            name=kv_name(site, role),
            stage="",
            layer=None,
            role=_ROLES[role],
            batch=sizes.batch,
            heads=sizes.heads,
            kv_heads=sizes.kv_heads,
            queries=sizes.queries,
            inputs=width if role == "key" else sizes.tokens,
            outputs=sizes.tokens if role == "key" else width,
            written=sizes.written,
            causal=not sizes.across and self._is_causal(event),
            across=sizes.across,
        )

    def _ruled(self, op: StaticMatMul | DynamicMatMul) -> Op:
        """The operation, or its digital form if a rule keeps it digital."""
        if isinstance(op, StaticMatMul):
            rule = self.rules.rule(weight_rule_names(op.name))
        else:
            _, rule = self.rules.match_kv(kv_rule_names(op.name))
        if rule.digital:
            return _in_lanes(op)
        return self._stored(op, ("multihead attention", op.name)) if isinstance(op, StaticMatMul) else op

    def _is_causal(self, event: Event) -> bool:
        """True if later keys are hidden, as the call, its mask, its module or else the phase of the pass shows."""
        if self.info.decode or event.right.cached:
            return True
        product = event.work
        separate = isinstance(product, Product) and product.kind not in ("attention", "multihead attention")
        causal = product.causal if isinstance(product, Product) and separate else event.causal
        if causal is not None:
            return causal
        module = self.weights_of.modules[event.module]
        flags = [getattr(module, name, None) for name in ("is_causal", "is_decoder")]
        return any(flag is True for flag in flags) if any(isinstance(f, bool) for f in flags) else self.info.causal

    def _stored_tokens(self, tokens: int, origin: TensorOrigin) -> int:
        """Tokens with keys and values, without the empty slots of a cache of fixed size."""
        new = tokens - origin.cached
        return min(tokens, self.info.cached_tokens + new) if new > 0 and origin.cached else tokens

    def _unfolded(self, heads: int, queries: int, origin: TensorOrigin) -> tuple[int, int]:
        """Heads, and queries of each head; some models put the queries of grouped heads along one axis."""
        M = self.info.tokens
        folded = M is not None and origin.cached and queries > M and queries % M == 0
        return (heads * queries // M, M) if folded and M is not None else (heads, queries)


class LeftOut(UserWarning):
    """Warning: a workload has no product of arrays for a product of the model.

    A rule leaves a product out that is not understood; or a product stays digital although no rule requires it, and is
    counted as digital operations.
    """


def _in_lanes(op: StaticMatMul | DynamicMatMul) -> Elementwise:
    """A product as an operation of the digital lanes: one element per multiplication."""
    return Elementwise(op.name, "", None, op.macs, "add")


def _has_work(op: Op) -> bool:
    """True unless an operation has no elements."""
    match op:
        case Elementwise():
            return op.elements > 0
        case Norm() | Lookup():
            return op.vectors > 0
        case Softmax():
            return op.rows > 0
    return True


def _is_across(event: Event, tokens: int) -> bool:
    """True if the keys belong to other tokens than the queries: all come from a cache, or from another input."""
    if event.right.cached >= tokens:
        return True
    return event.right.stream not in (0, event.left.stream)
