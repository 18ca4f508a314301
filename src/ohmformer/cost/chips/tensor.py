"""The share of a layer that each of T chips computes: columns of some weights, rows of others, and heads.

Products that read tokens are cut by columns, so that each chip makes 1/T of their results; the next products multiply
these by their rows, and an all-reduce adds the partial sums of all chips (Shoeybi et al., "Megatron-LM", arXiv
1909.08053). Attention is cut by heads. Normalizations, residuals and embedding tables are on every chip. Where a layer
ends with columns, such as the head of a vocabulary, a gather brings their results together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ohmformer.errors import BadInput, shown
from ohmformer.workload.spec import DynamicMatMul, Elementwise, Exchange, Layer, Norm, Op, Softmax, StaticMatMul


@dataclass(frozen=True)
class _Cut:
    """Values that are cut among the chips: each has a share of them.

    Attributes:
        widths: the widths that the next products may read: those of all products before it, and what follows from them.
        values: number of all values, for all samples.
    """

    widths: frozenset[int]
    values: int


def layer_share(layer: Layer, chips: int, title: str) -> list[Op]:
    """The operations of one of `chips` chips that share a layer, exchanges included.

    Args:
        layer: the operations of the whole layer.
        chips: T, number of chips.
        title: name of the model, for messages.

    Raises:
        BadInput: heads or columns are not a multiple of T, or the layer has another structure.
    """
    if chips == 1:
        return list(layer.ops)
    return _Splitter(layer, chips, title).split()


class _Splitter:
    """Cuts the stages of a layer in order.

    Attributes:
        heads: heads, and heads of keys and values, of the attention whose Q, K and V the stage at hand makes.
        cut: values that are cut at present; None if every chip has all of them.
        exchanges: number of exchanges so far.
    """

    def __init__(self, layer: Layer, chips: int, title: str) -> None:
        self.layer, self.chips, self.title = layer, chips, title
        self.cut: _Cut | None = None
        self.ops: list[Op] = []
        self.exchanges = 0

    def split(self) -> list[Op]:
        """All stages, and a gather if the last results are cut."""
        stages = list(self.layer.stages().items())
        for place, (name, ops) in enumerate(stages):
            products = [op for op in ops if isinstance(op, StaticMatMul)]
            dynamic = [op for op in ops if isinstance(op, DynamicMatMul)]
            if dynamic:
                self._attention(ops, dynamic)
            elif products and self.cut is None:
                following = next(
                    (op for _, later in stages[place + 1 :] for op in later if isinstance(op, DynamicMatMul)), None
                )
                last = not any(
                    isinstance(op, StaticMatMul | DynamicMatMul) for _, later in stages[place + 1 :] for op in later
                )
                self._columns(ops, products, following, padded=last)
            elif products:
                self._rows(name, ops, products)
            else:
                self.ops += [self._beside(op) for op in ops]
        if self.cut is not None:
            self._exchange("gather", stages[-1][0], self.cut.values)
        return self.ops

    def _columns(
        self, ops: list[Op], products: list[StaticMatMul], attention: DynamicMatMul | None, *, padded: bool
    ) -> None:
        """A stage whose products are cut by columns; what joins them follows their results.

        Columns whose results are gathered, such as those of a vocabulary, are padded to a multiple of the chips.
        """
        whole = {op.inputs for op in products}
        widths = [op.outputs for op in products]
        found = {*widths, sum(widths)} | {width // 2 for width in widths if width % 2 == 0}
        if attention is not None:
            found = {attention.heads * attention.head_width}
        self.cut = _Cut(frozenset(found), sum(op.vectors * op.outputs for op in products))
        for op in ops:
            if isinstance(op, StaticMatMul):
                columns = -(-op.outputs // self.chips) if padded else self._columns_of(op, attention)
                self.ops.append(replace(op, outputs=columns))
            elif isinstance(op, Norm) and op.width in whole:
                self.ops.append(op)
            elif self._repeats_keys(op, attention, products):
                assert isinstance(op, Elementwise)
                assert attention is not None
                self.ops.append(replace(op, elements=op.elements // attention.kv_heads))
            else:
                self.ops.append(self._beside(op))

    def _columns_of(self, op: StaticMatMul, attention: DynamicMatMul | None) -> int:
        """Number of columns of a product on each chip."""
        if attention is None or attention.kv_heads % self.chips == 0:
            return self._share(op.outputs, f"{op.name} has", "columns")
        heads, kv_heads, width = attention.heads, attention.kv_heads, attention.head_width
        share = self._heads(heads, attention) * width
        kept = {
            kv_heads * width: width,
            2 * kv_heads * width: 2 * width,
            (heads + 2 * kv_heads) * width: share + 2 * width,
            heads * width: share,
        }
        if op.outputs not in kept:
            raise self._refused(f"{op.name} has {op.outputs:,} columns, which are neither queries, keys nor values")
        return kept[op.outputs]

    def _repeats_keys(self, op: Op, attention: DynamicMatMul | None, products: list[StaticMatMul]) -> bool:
        """True for operations on keys of a head that several chips have."""
        if attention is None or attention.kv_heads % self.chips == 0 or not isinstance(op, Elementwise):
            return False
        return op.elements in {
            product.vectors * product.outputs
            for product in products
            if product.outputs == attention.kv_heads * attention.head_width != attention.heads * attention.head_width
        }

    def _attention(self, ops: list[Op], products: list[DynamicMatMul]) -> None:
        """A stage of products of two activations, and of the softmax: each chip has its heads."""
        if self.cut is None:
            raise self._refused(f"{products[0].name} multiplies activations that no product cut by columns has made")
        for op in ops:
            if isinstance(op, DynamicMatMul):
                heads = self._heads(op.heads, op)
                kv_heads = max(1, op.kv_heads // self.chips)
                if op.kv_heads % self.chips and self.chips % op.kv_heads:
                    raise self._refused(
                        f"{op.name} has {op.kv_heads} heads of keys and values, which {self.chips} chips can neither "
                        "divide nor repeat evenly"
                    )
                self.ops.append(replace(op, heads=heads, kv_heads=kv_heads))
            else:
                self.ops.append(self._beside(op))

    def _rows(self, name: str, ops: list[Op], products: list[StaticMatMul]) -> None:
        """A stage whose products are cut by rows; an all-reduce adds their partial sums, then every chip has all."""
        assert self.cut is not None
        for product in products:
            if product.inputs not in self.cut.widths:
                raise self._refused(
                    f"{product.name} multiplies {product.inputs:,} values, which are not those that the products "
                    "before it have made"
                )
        reduced = 0
        self.cut = None
        for op in ops:
            if isinstance(op, StaticMatMul):
                self.ops.append(replace(op, inputs=self._share(op.inputs, f"{op.name} has", "rows")))
                reduced += op.vectors * op.outputs
            else:
                self.ops.append(op)
        self._exchange("all_reduce", name, reduced)

    def _beside(self, op: Op) -> Op:
        """An operation on values that are cut now, or on whole ones."""
        if self.cut is None:
            return op
        match op:
            case Softmax():
                rows = self._share(op.rows, f"{op.name} has", "rows of scores")
                return replace(op, rows=rows, heads=max(1, op.heads // self.chips))
            case Elementwise():
                return replace(op, elements=-(-op.elements // self.chips))
            case Norm():
                return replace(op, vectors=-(-op.vectors // self.chips))
        return op

    def _heads(self, heads: int, op: DynamicMatMul) -> int:
        return self._share(heads, f"{op.name} has", "heads")

    def _share(self, count: int, who: str, what: str) -> int:
        share, rest = divmod(count, self.chips)
        if rest:
            raise self._refused(f"{who} {count:,} {what}, which {self.chips} chips cannot divide evenly")
        return share

    def _exchange(self, kind: str, stage: str, values: int) -> None:
        name = f"{stage}.{kind}"
        self.ops.append(
            Exchange(name, name, self.layer.index, kind, values, self.chips, self.exchanges)  # type: ignore[arg-type]
        )
        self.exchanges += 1

    def _refused(self, reason: str) -> BadInput:
        return BadInput(
            f"hardware.system.degree = {self.chips}: {self.layer.name} of {shown(self.title)}: {reason}; take another "
            "degree, or partition = 'pipeline'"
        )
