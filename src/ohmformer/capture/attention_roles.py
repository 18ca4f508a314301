"""`AttentionRoles`: finds the products Q K^T and P V of attention among the products of two activations.

The result of each such product is followed: if it reaches a softmax, or another product of two activations, it is
Q K^T (scores). A product with a factor that descends from scores is P V (probabilities times values).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

if TYPE_CHECKING:
    from ohmformer.capture.product import Product

_SOFTMAX = {"softmax", "_softmax"}
_KEEPS_PROBABILITIES = {
    "dropout", "to", "type", "type_as", "float", "half", "bfloat16", "view", "reshape", "transpose", "permute",
    "contiguous", "expand", "flatten", "unflatten", "squeeze", "unsqueeze", "__getitem__", "clone", "detach", "chunk",
    "split", "narrow", "unbind", "masked_fill", "masked_fill_", "swapaxes", "movedim", "softmax",
}  # fmt: skip
"""Functions that leave each probability as it is, or make it zero."""


@dataclass(frozen=True)
class _Descent:
    """The products from which a tensor descends.

    Attributes:
        scores: products of two activations on whose results the tensor depends.
        softmax: True if it depends on them through a softmax.
        pure: True if its values are those of that softmax, or zero.
    """

    scores: frozenset[Product]
    softmax: bool = False
    pure: bool = False


class AttentionRoles:
    """Follows the results of products of two activations through a forward pass.

    A result is followed until the parent of the module that computed it returns, since attention does not reach
    further.

    Attributes:
        stack: names of the modules whose `forward` runs now, outermost first; the recorder keeps it.
        descents: tensor -> the products from which it descends.
        parents: product -> names of the modules around the one that computed it, outermost first.
        scores: product P V -> the products Q K^T whose results became P.
    """

    def __init__(self, stack: list[str]) -> None:
        self.stack = stack
        self.descents = WeakIdKeyDictionary()
        self.parents: dict[Product, tuple[str, ...]] = {}
        self.scores: dict[Product, list[Product]] = {}

    def assign(self, product: Product, left: Tensor, right: Tensor) -> None:
        """Set the role of a new product to "value" if one of its factors descends from scores, and theirs to "key".

        If the right factor holds the probabilities, `Product.swapped` is set.
        """
        descent, other = self._descent([left]), self._descent([right])
        if other is not None and other.softmax and self._live(other) and not (descent is not None and descent.softmax):
            descent, product.swapped = other, True
        scores_of_product = [] if descent is None else self._scores_of(product, descent)
        if descent is not None and scores_of_product:
            product.role, product.unsigned = "value", descent.pure
            self.scores[product] = scores_of_product
            product.scope = self._scope(self.scores[product])
            product.scores_at = tuple(p.position for p in scores_of_product if p.module == product.module)
            for scores in self.scores[product]:
                product.causal = product.causal or scores.causal
                scores.role = scores.role or "key"
        self.parents[product] = tuple(self.stack[:-1])

    def follow(self, func: Any, inputs: list[Tensor], outputs: list[Tensor], products: list[Product]) -> None:
        """Pass the descent of the inputs of a call on to its outputs.

        Args:
            func: the function that was called.
            inputs: tensors among its arguments.
            outputs: tensors that it returned or changed.
            products: products of the call.
        """
        new_scores = [p for p in products if p.kind in ("two activations", "computed weights") and p.role != "value"]
        if any(p.role == "value" for p in products):
            return
        descent = self._descent(inputs)
        name = getattr(func, "__name__", "")
        if new_scores:
            descent = _Descent(frozenset(new_scores))
        if descent is None or not self._live(descent):
            return
        if name in _SOFTMAX:
            for scores in self._live(descent):
                scores.role = scores.role or "key"
            descent = _Descent(descent.scores, softmax=True, pure=True)
        elif not new_scores and name not in _KEEPS_PROBABILITIES:
            descent = _Descent(descent.scores, descent.softmax, pure=False)
        for leaf in outputs:
            self.descents[leaf] = descent

    def _scope(self, scores: list[Product]) -> str:
        """Name of the innermost module inside which scores became probabilities."""
        shared = [*self.stack]
        for product in scores:
            path = (*self.parents.get(product, ()), product.module)
            shared = [a for a, b in zip(shared, path, strict=False) if a == b]
        return shared[-1] if shared else ""

    def _descent(self, inputs: list[Tensor]) -> _Descent | None:
        """The products from which any of these tensors descends; None without any."""
        descents = [self.descents[t] for t in inputs if t in self.descents]
        if not descents:
            return None
        scores = frozenset().union(*(descent.scores for descent in descents))
        return _Descent(scores, any(descent.softmax for descent in descents), all(descent.pure for descent in descents))

    def _scores_of(self, product: Product, descent: _Descent) -> list[Product]:
        """The products Q K^T from whose results a factor of P V descends.

        Without a softmax between the two (linear attention), they must be products of one module: a product of a later
        layer also descends from one of an earlier layer, by the residual path alone.
        """
        live = self._live(descent)
        return live if descent.softmax else [scores for scores in live if scores.module == product.module]

    def _live(self, descent: _Descent) -> list[Product]:
        """The products of a descent that are still followed: those whose parent modules have not returned."""
        now = tuple(self.stack)
        return [p for p in descent.scores if now[: len(self.parents.get(p, ()))] == self.parents.get(p, ())]
