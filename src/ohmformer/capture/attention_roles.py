"""Which products of two activations belong to one attention: scores that become probabilities that mix values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

if TYPE_CHECKING:
    from ohmformer.capture.product import Product

_SOFTMAX = {"softmax", "_softmax"}
_PURE = {
    "dropout", "to", "type", "type_as", "float", "half", "bfloat16", "view", "reshape", "transpose", "permute",
    "contiguous", "expand", "flatten", "unflatten", "squeeze", "unsqueeze", "__getitem__", "clone", "detach", "chunk",
    "split", "narrow", "unbind", "masked_fill", "masked_fill_", "swapaxes", "movedim", "softmax",
}  # fmt: skip
"""What leaves the values of probabilities as they are, or makes them zero."""


@dataclass(frozen=True)
class _Mark:
    """What a tensor descends from.

    Attributes:
        scores: products whose result it depends on, and that no softmax has seen yet or only then.
        softmax: it depends on a softmax of them.
        pure: it is such a softmax, but for its shape.
    """

    scores: frozenset[Product]
    softmax: bool = False
    pure: bool = False


class AttentionRoles:
    """Follows the results of products of two activations through a forward pass.

    A result is followed until the module around the one that computed it is done: attention does not reach further.
    """

    def __init__(self, stack: list[str]) -> None:
        self.stack = stack
        self.marks = WeakIdKeyDictionary()
        self.around: dict[Product, tuple[str, ...]] = {}
        self.scores: dict[Product, list[Product]] = {}

    def role(self, product: Product, left: Tensor, right: Tensor) -> None:
        """Say what a new product is to attention, as far as its factors tell; probabilities may stand on the right."""
        mark, other = self._mark([left]), self._mark([right])
        if other is not None and other.softmax and self._alive(other) and not (mark is not None and mark.softmax):
            mark, product.swapped = other, True
        mixed = [] if mark is None else self._mixed_by(product, mark)
        if mark is not None and mixed:
            product.role, product.unsigned = "value", mark.pure
            self.scores[product] = mixed
            product.scope = self._scope(self.scores[product])
            for scores in self.scores[product]:
                product.causal = product.causal or scores.causal
                scores.role = scores.role or "key"
        self.around[product] = tuple(self.stack[:-1])

    def follow(self, func: Any, inputs: list[Tensor], outputs: list[Tensor], products: list[Product]) -> None:
        """Pass marks on from the inputs of a call to its outputs."""
        own = [p for p in products if p.kind in ("two activations", "computed weights") and p.role != "value"]
        if any(p.role == "value" for p in products):
            return
        mark = self._mark(inputs)
        name = getattr(func, "__name__", "")
        if own:
            mark = _Mark(frozenset(own))
        if mark is None or not self._alive(mark):
            return
        if name in _SOFTMAX:
            for scores in self._alive(mark):
                scores.role = scores.role or "key"
            mark = _Mark(mark.scores, softmax=True, pure=True)
        elif not own and name not in _PURE:
            mark = _Mark(mark.scores, mark.softmax, pure=False)
        for leaf in outputs:
            self.marks[leaf] = mark

    def _scope(self, scores: list[Product]) -> str:
        """Name of the innermost module inside which products became probabilities."""
        shared = [*self.stack]
        for product in scores:
            around = (*self.around.get(product, ()), product.module)
            shared = [a for a, b in zip(shared, around, strict=False) if a == b]
        return shared[-1] if shared else ""

    def _mark(self, inputs: list[Tensor]) -> _Mark | None:
        found = [self.marks[t] for t in inputs if t in self.marks]
        if not found:
            return None
        scores = frozenset().union(*(mark.scores for mark in found))
        return _Mark(scores, any(mark.softmax for mark in found), all(mark.pure for mark in found))

    def _mixed_by(self, product: Product, mark: _Mark) -> list[Product]:
        """Scores that a product multiplies with values.

        Without a softmax between the two (linear attention), they must be products of one module: a product of a later
        layer also descends from one of an earlier layer, by the residual path alone.
        """
        alive = self._alive(mark)
        return alive if mark.softmax else [scores for scores in alive if scores.module == product.module]

    def _alive(self, mark: _Mark) -> list[Product]:
        """The products of a mark whose surroundings are still at work."""
        now = tuple(self.stack)
        return [p for p in mark.scores if now[: len(self.around.get(p, ()))] == self.around.get(p, ())]
