"""Specification of a workload: the operations of one forward pass as shapes, without values and without hardware.

A workload is made from a table of dimensions (`workload.shapes`) or traced from a real model (`tracing.trace`).
Symbols: M input vectors (tokens of all samples), K inputs and N outputs of a product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ohmformer.errors import BadInput, printable

Phase = Literal["encode", "prefill", "decode"]
AttentionRole = Literal["attention.key", "attention.value"]

_IDENTITY = ("name", "layer", "rule_names")
"""Fields that say which operation it is, not what it does."""


@dataclass(frozen=True)
class Op:
    """Base of all operations.

    Attributes:
        name: name of the module or product.
        stage: operations of one layer with the same stage run in parallel. Stages run one after the other, in the order
            in which they first appear.
        layer: index of the layer; None outside of layers, such as for a patch embedding.
    """

    name: str
    stage: str
    layer: int | None

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations."""
        return 0

    def anonymous(self) -> tuple[Any, ...]:
        """Type and fields without names and layer: equal for operations that do the same."""
        return (type(self), *(value for field, value in vars(self).items() if field not in _IDENTITY))


@dataclass(frozen=True)
class StaticMatMul(Op):
    """A product with weights: M vectors times W[K, N].

    Attributes:
        vectors: M.
        inputs: K.
        outputs: N.
        shared_with: name of the operation that already stores the same weights; empty if there is none.
        rule_names: names by which rules find the weights; empty if they follow from `name` (see
            `hardware.operand_names.weight_rule_names`). A group of a convolution has its own name, but the rules of the
            whole layer.
    """

    vectors: int
    inputs: int
    outputs: int
    shared_with: str = ""
    rule_names: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """M K N."""
        return self.vectors * self.inputs * self.outputs


@dataclass(frozen=True)
class DynamicMatMul(Op):
    """A product of two activations, for each sample and head: `queries` vectors times a matrix [K, N].

    For `attention.key` the matrix is K^T (K inputs = head width, N outputs = tokens held). For `attention.value` it is
    V (K inputs = tokens held, N outputs = head width).

    Attributes:
        role: which of the two it is.
        batch: samples.
        heads: heads of the queries.
        kv_heads: heads of keys and values, each shared by a group of query heads.
        queries: input vectors of each sample and head.
        inputs: K.
        outputs: N.
        written: how many of the tokens held are new in this pass; the others are cached.
        causal: True if a token attends only to itself and to those before it.
        across: True for cross attention: the matrix comes from other tokens than the queries.
        turned: True if the model has the matrix on the left-hand side, because of a rule.
    """

    role: AttentionRole
    batch: int
    heads: int
    kv_heads: int
    queries: int
    inputs: int
    outputs: int
    written: int
    causal: bool = False
    across: bool = False
    turned: bool = False

    @property
    def macs(self) -> int:
        """Queries times K N, over all samples and heads."""
        return self.batch * self.heads * self.queries * self.inputs * self.outputs

    @property
    def tokens(self) -> int:
        """Number of tokens held, new and cached."""
        return self.outputs if self.role == "attention.key" else self.inputs

    @property
    def head_width(self) -> int:
        """Values of a token in one head."""
        return self.inputs if self.role == "attention.key" else self.outputs

    @property
    def group(self) -> int:
        """Number of query heads that share one matrix."""
        return self.heads // self.kv_heads


@dataclass(frozen=True)
class Softmax(Op):
    """Softmax over rows of `length` scores; `rows` counts all samples, heads and queries."""

    rows: int
    length: int
    heads: int


@dataclass(frozen=True)
class Norm(Op):
    """Normalization of `vectors` vectors of `width` values."""

    vectors: int
    width: int


@dataclass(frozen=True)
class Elementwise(Op):
    """An activation of `elements` values (kind "activation"), or their pairwise sum or product (kind "add")."""

    elements: int
    kind: Literal["activation", "add"] = "activation"


@dataclass(frozen=True)
class Lookup(Op):
    """`vectors` rows of `width` values read from a table of `entries` rows."""

    vectors: int
    width: int
    entries: int


@dataclass(frozen=True)
class Exchange(Op):
    """Values that chips which share layers send to one another, or to the chips of the next layers.

    No model has this operation: `cost.chips` adds it where a model is divided among chips.

    Attributes:
        kind: `send`: all values, to the chips of the next layers. `all_reduce`: each chip has partial sums of all
            values, and gets their sums. `gather`: each chip has a share of the values, and gets all of them.
        values: number of values, for all samples.
        chips: number of chips that share the layer.
        number: position among the exchanges of the layer.
        copies: number of chips to which each chip sends, one after another; only for `send`.
    """

    kind: Literal["send", "all_reduce", "gather"]
    values: int
    chips: int
    number: int = 0
    copies: int = 1


@dataclass(frozen=True)
class Layer:
    """Consecutive operations of one layer, or of a part of the model outside of layers.

    Attributes:
        name: for tables.
        index: index of the layer; None outside of layers.
        tokens: M for one sample.
        ops: operations in the order in which they run.
    """

    name: str
    index: int | None
    tokens: int
    ops: tuple[Op, ...]

    def stages(self) -> dict[str, list[Op]]:
        """Stage -> its operations, in the order in which stages run."""
        by_stage: dict[str, list[Op]] = {}
        for op in self.ops:
            by_stage.setdefault(op.stage, []).append(op)
        return by_stage

    def anonymous(self) -> tuple[Any, ...]:
        """The operations without names and layer: equal for layers that do the same."""
        return self._anonymous

    @cached_property
    def _anonymous(self) -> tuple[Any, ...]:
        return tuple(op.anonymous() for op in self.ops)


@dataclass(frozen=True)
class Workload:
    """One forward pass of `batch` samples.

    Attributes:
        title: name of the model.
        phase: `encode` processes all tokens at once, `prefill` likewise with a causal mask, `decode` makes one token.
        batch: samples.
        tokens: new tokens of each sample.
        context: tokens of each sample whose keys and values are cached.
        causal: True if a token attends only to itself and to those before it.
        ops: operations in the order in which they run.

    Raises:
        BadInput: `batch` or `tokens` is below 1, or there are no operations.
    """

    title: str
    phase: Phase
    batch: int
    tokens: int
    context: int
    causal: bool
    ops: tuple[Op, ...]

    def __repr__(self) -> str:
        """Title, phase and sizes in one line, without the operations."""
        layers = len({op.layer for op in self.ops} - {None})
        tokens = f"tokens {self.tokens:,}" + (f", {self.context:,} cached" if self.context else "")
        return (
            f"Workload({printable(str(self.title))}: {self.phase}, batch {self.batch:,}, {tokens}; "
            f"layers {layers:,}, operations {len(self.ops):,}, multiply-accumulates {self.macs:.4g})"
        )

    def __post_init__(self) -> None:
        for name in ("batch", "tokens"):
            if getattr(self, name) < 1:
                raise BadInput(f"workload {self.title}: {name} = {getattr(self, name)}: must be 1 or more; raise it")
        if not self.ops:
            raise BadInput(f"workload {self.title}: has no operations; trace a model, or take a table of shapes")

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of all products."""
        return sum(op.macs for op in self.ops)

    @property
    def operations(self) -> int:
        """Operations as TOPS count them: two for each multiply-accumulate."""
        return 2 * self.macs

    @property
    def dynamic_macs(self) -> int:
        """Multiply-accumulate operations of products of two activations."""
        return sum(op.macs for op in self.dynamic)

    @cached_property
    def dynamic(self) -> tuple[DynamicMatMul, ...]:
        """The products of two activations."""
        return tuple(op for op in self.ops if isinstance(op, DynamicMatMul))

    def layers(self) -> tuple[Layer, ...]:
        """The operations cut at every change of layer."""
        return self._layers

    @cached_property
    def _layers(self) -> tuple[Layer, ...]:
        groups: list[list[Op]] = []
        for op in self.ops:
            if not groups or groups[-1][0].layer != op.layer:
                groups.append([])
            groups[-1].append(op)
        return tuple(Layer(_title(ops[0]), ops[0].layer, self._tokens_of_layer(ops), tuple(ops)) for ops in groups)

    @cached_property
    def kinds(self) -> tuple[int, ...]:
        """For each layer, the position of the first layer that does the same."""
        first: dict[tuple[Any, ...], int] = {}
        return tuple(
            first.setdefault((layer.tokens, layer.anonymous()), position)
            for position, layer in enumerate(self.layers())
        )

    def _tokens_of_layer(self, ops: list[Op]) -> int:
        """M of one sample, from the first operation that has a number of vectors."""
        for op in ops:
            match op:
                case StaticMatMul() | Norm() | Lookup():
                    return max(1, op.vectors // self.batch)
                case DynamicMatMul():
                    return op.queries
        return self.tokens


def _title(op: Op) -> str:
    """Name of the layer of an operation."""
    return f"layer {op.layer}" if op.layer is not None else op.stage
