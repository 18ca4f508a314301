"""The work of a forward pass as shapes: nothing of values, nothing of hardware.

It is made from a table of dimensions (`workload.shapes`) or from a real model. Symbols: M input vectors (tokens of all
samples), K inputs and N outputs of a product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ohmformer.errors import BadInput

Phase = Literal["encode", "prefill", "decode"]
AttentionRole = Literal["attention.key", "attention.value"]

_OWN = ("name", "layer", "rule_names")
"""Fields that tell operations apart which do the same."""


@dataclass(frozen=True)
class Op:
    """Common to all: the module that asks for it, and where it stands.

    Operations of one layer that have the same `stage` work at once; stages follow one another in the order in which
    they first appear. `layer` is None for what comes before, between or after the layers, such as a patch embedding.
    """

    name: str
    stage: str
    layer: int | None

    @property
    def macs(self) -> int:
        """Multiplications with accumulation."""
        return 0

    def anonymous(self) -> tuple[Any, ...]:
        """All but names and layer: equal for operations that do the same."""
        return (type(self), *(value for field, value in vars(self).items() if field not in _OWN))


@dataclass(frozen=True)
class StaticMatMul(Op):
    """A product with weights: M vectors x W[K, N].

    `shared_with` names the operation for which they are stored already. `rule_names` are the names by which rules find
    the weights, if those do not follow from `name` (see `hardware.operand_names.weight_rule_names`): a group of a
    convolution has a name of its own, and the rules of the whole layer.
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
    """A product of two activations, for each sample and head: `queries` vectors x a matrix [K, N].

    For `attention.key` the matrix is K^T (K = head width, N = tokens held), for `attention.value` it is V (K = tokens
    held, N = head width). `written` of the held tokens are new in this pass; the others are cached. Heads beyond
    `kv_heads` share the matrices of their group.
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
    """Whether the matrix comes from other tokens than the queries: cross attention."""
    turned: bool = False
    """Whether the model has the matrix on the left-hand side: a rule said so."""

    @property
    def macs(self) -> int:
        """M K N over all samples and heads."""
        return self.batch * self.heads * self.queries * self.inputs * self.outputs

    @property
    def tokens(self) -> int:
        """Tokens held."""
        return self.outputs if self.role == "attention.key" else self.inputs

    @property
    def head_width(self) -> int:
        """Values of a token in one head."""
        return self.inputs if self.role == "attention.key" else self.outputs

    @property
    def group(self) -> int:
        """Heads that read the same matrix."""
        return self.heads // self.kv_heads


@dataclass(frozen=True)
class Softmax(Op):
    """Softmax over rows of `length` scores; `rows` counts all samples, heads and queries."""

    rows: int
    length: int
    heads: int


@dataclass(frozen=True)
class Norm(Op):
    """Normalisation of `vectors` vectors of `width` values."""

    vectors: int
    width: int


@dataclass(frozen=True)
class Elementwise(Op):
    """`elements` values through an activation (`kind = "activation"`), or added or multiplied in pairs (`"add"`)."""

    elements: int
    kind: Literal["activation", "add"] = "activation"


@dataclass(frozen=True)
class Lookup(Op):
    """`vectors` rows of `width` values read from a table of `entries` rows."""

    vectors: int
    width: int
    entries: int


@dataclass(frozen=True)
class Layer:
    """Consecutive operations of one layer, or of what lies outside layers. `tokens` is M for one sample."""

    name: str
    index: int | None
    tokens: int
    ops: tuple[Op, ...]

    def stages(self) -> dict[str, list[Op]]:
        """Operations by stage, in order."""
        found: dict[str, list[Op]] = {}
        for op in self.ops:
            found.setdefault(op.stage, []).append(op)
        return found

    def anonymous(self) -> tuple[Any, ...]:
        """The operations without name and layer: equal for layers that do the same."""
        return self._anonymous

    @cached_property
    def _anonymous(self) -> tuple[Any, ...]:
        return tuple(op.anonymous() for op in self.ops)


@dataclass(frozen=True)
class Workload:
    """One forward pass of `batch` samples.

    Attributes:
        title: the model.
        phase: `encode` sees all tokens at once, `prefill` too but with a causal mask, `decode` makes one token.
        batch: samples.
        tokens: new tokens of each sample.
        context: tokens whose keys and values are cached.
        causal: whether a token sees only those before it.
        ops: in the order in which they run.
    """

    title: str
    phase: Phase
    batch: int
    tokens: int
    context: int
    causal: bool
    ops: tuple[Op, ...]

    def __post_init__(self) -> None:
        for name in ("batch", "tokens"):
            if getattr(self, name) < 1:
                raise BadInput(f"workload {self.title}: {name} = {getattr(self, name)}: must be 1 or more; raise it")
        if not self.ops:
            raise BadInput(f"workload {self.title}: has no operations; trace a model, or take a table of shapes")

    @property
    def macs(self) -> int:
        """Multiplications with accumulation of all products."""
        return sum(op.macs for op in self.ops)

    @property
    def operations(self) -> int:
        """Two for each multiplication with accumulation: what TOPS count."""
        return 2 * self.macs

    @property
    def dynamic_macs(self) -> int:
        """Those of products of two activations."""
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
        return tuple(Layer(_title(ops[0]), ops[0].layer, self._tokens(ops), tuple(ops)) for ops in groups)

    @cached_property
    def kinds(self) -> tuple[int, ...]:
        """For each layer the position of the first one that does the same."""
        first: dict[tuple[Any, ...], int] = {}
        return tuple(
            first.setdefault((layer.tokens, layer.anonymous()), position)
            for position, layer in enumerate(self.layers())
        )

    def _tokens(self, ops: list[Op]) -> int:
        """M of one sample: that of the first operation that says it."""
        for op in ops:
            match op:
                case StaticMatMul() | Norm() | Lookup():
                    return max(1, op.vectors // self.batch)
                case DynamicMatMul():
                    return op.queries
        return self.tokens


def _title(op: Op) -> str:
    return f"layer {op.layer}" if op.layer is not None else op.stage
