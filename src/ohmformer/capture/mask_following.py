"""`Follower`: follows scores from Q K^T to their softmax, and probabilities from there to P V, to find their mask.

A model may do anything with its scores before the softmax: add a mask, fill, multiply, gather, fold windows. So the
product is deferred: a placeholder without values takes its place, and the calls on it are recorded. At the softmax, the
same calls on scores of zero show which keys are visible. Then the product is computed, and the calls are repeated on
its values. If scores do not reach a softmax, nothing is assumed of their mask.

Shapes: M queries, N keys; `...` are axes of samples and heads in any order. A visible mask is True where a query sees
a key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ohmformer.capture.contraction.matmul import Contraction, as_contraction
from ohmformer.capture.inputs import tensors_in
from ohmformer.capture.score_chain import (
    FACTORIES,
    FILL,
    KEEPS_VALUES,
    METADATA,
    MINUS,
    PLUS,
    SOFTMAX,
    TIMES,
    VIEWS,
    Chain,
    ScoreCall,
    Scores,
    is_in_place,
    visible_masks,
)  # fmt: skip
from ohmformer.capture.torch_private import tree_map_only


class Follower:
    """Follows scores and probabilities through the calls of one module.

    Attributes:
        chains: scores, and tensors computed from them -> the chain that they belong to.
        values: placeholder, and tensors computed from it -> the tensor with its values, once they are known.
        visible: probabilities, and tensors computed from them -> their visible mask.
    """

    def __init__(self) -> None:
        self.chains = WeakIdKeyDictionary()
        self.values = WeakIdKeyDictionary()
        self.visible = WeakIdKeyDictionary()
        self.followed = (self.chains.data, self.values.data, self.visible.data)
        """All tensors that are followed; `any` of this tuple is faster than a call of `busy`."""

    @property
    def busy(self) -> bool:
        """True if there is anything to follow."""
        return any(self.followed)

    def wait(self, factors: Contraction, compute: Callable[[Tensor | None], Tensor]) -> Tensor:
        """Defer a product until its mask is known.

        Args:
            factors: the factors of the product.
            compute: computes the product from its visible mask [..., M, N]; None if the mask is unknown.

        Returns:
            A placeholder in the shape of the product, which the model goes on with.
        """
        scores = Scores(factors.left, factors, compute)
        zeros = factors.left.new_zeros(()).expand(scores.shape)
        with torch.no_grad():
            scores.result = factors.finish(zeros)
        self.chains[scores.result] = Chain([scores])
        return scores.result

    def begin(
        self, factors: Contraction, result: Tensor, on_visible: Callable[[Tensor | None], None] | None = None
    ) -> None:
        """Follow scores that are computed already, and call `on_visible` with their visible mask."""
        self.chains[result] = Chain([Scores(result, factors, on_visible=on_visible)])

    def known(self, values: Any) -> Any:
        """Arguments or outputs with each placeholder whose values are known replaced by them."""
        if not self.values.data:
            return values
        return tree_map_only(Tensor, lambda t: self.values.get(t, t), values)

    @property
    def waiting(self) -> bool:
        """True if scores are followed that have not reached a softmax."""
        return bool(self.chains.data)

    def concerns(self, tensors: list[Tensor]) -> bool:
        """True if there are scores or probabilities among the tensors in the arguments of a call."""
        return any(t in self.chains or t in self.visible for t in tensors)

    def _finish_chain(self, chain: Chain, softmax_input: Tensor | None = None) -> None:
        """Compute the deferred products of a chain, repeat its calls on their values, and stop following it.

        Args:
            chain: the chain.
            softmax_input: tensor of the chain that a softmax takes; None without a softmax: masks are then unknown.
        """
        masks = None if softmax_input is None else visible_masks(chain, softmax_input)
        of_products = masks[1] if masks else [None] * len(chain.products)
        for scores, visible in zip(chain.products, of_products, strict=True):
            if scores.on_visible is not None and masks is not None:
                scores.on_visible(visible)
        if chain.deferred:
            values: dict[int, Tensor] = {}
            for scores, visible in zip(chain.products, of_products, strict=True):
                values[id(scores.result)] = scores.result if scores.compute is None else scores.compute(visible)
                self.values[scores.result] = values[id(scores.result)]
            for call in chain.calls:
                for old, new in zip(call.outputs, call.repeat(values), strict=True):
                    values[id(old)] = self.values[old] = new
        for t in (*(scores.result for scores in chain.products), *(t for call in chain.calls for t in call.outputs)):
            self.chains.pop(t, None)
        if softmax_input is not None and masks is not None and masks[0] is not None:
            self.visible[self.values.get(softmax_input, softmax_input)] = masks[0]
        chain.products, chain.calls = [], []

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one call of the model on scores or probabilities; the call is not a product.

        Returns:
            Its output, which may be a placeholder.
        """
        name = getattr(func, "__name__", "")
        chains = list({id(c): c for t in tensors_in((args, kwargs)) if (c := self.chains.get(t)) is not None}.values())
        if not chains:
            return self._call_on_probabilities(func, name, args, kwargs)
        if name in METADATA | FACTORIES:
            return func(*args, **kwargs)
        if name in SOFTMAX:
            return self._softmax(func, args, kwargs, chains)
        if name == "__get__" and not isinstance(output := func(*args, **kwargs), Tensor):
            return output
        return self._call_on_scores(func, args, kwargs, chains)

    def computed(self, values: Any) -> Any:
        """Arguments or outputs with every placeholder replaced by its values; masks not found by then stay unknown."""
        for t in tensors_in(values):
            if t in self.chains:
                self._finish_chain(self.chains[t])
        return self.known(values)

    def _call_on_values(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run a call that needs values, or through which scores are not followed."""
        args, kwargs = self.computed((args, kwargs))
        return func(*args, **kwargs)

    def _softmax(self, func: Any, args: Any, kwargs: Any, chains: list[Chain]) -> Any:
        softmax_input = args[0] if args else kwargs.get("input")
        for chain in chains:
            self._finish_chain(chain, softmax_input if isinstance(softmax_input, Tensor) else None)
        args, kwargs = self.known((args, kwargs))
        output = func(*args, **kwargs)
        if args and args[0] in self.visible:
            self.visible[output] = self.visible.pop(args[0])
        return output

    def _call_on_scores(self, func: Any, args: Any, kwargs: Any, chains: list[Chain]) -> Any:
        """Run a call that may lead to a softmax, and add it to the chain of its scores."""
        in_place = is_in_place(func)
        random = "dropout" in getattr(func, "__name__", "") and kwargs.get("training", True)
        if random or "out" in kwargs or (in_place and args[0] not in self.chains):
            return self._call_on_values(func, args, kwargs)
        chain = chains[0]
        for other in chains[1:]:
            chain.products += other.products
            chain.calls += other.calls
        if not any(c.deferred for c in chains):
            output = func(*args, **kwargs)
            outputs = tensors_in(output) if not in_place else [args[0]]
        elif in_place:
            output = None if func is Tensor.__setitem__ else args[0]
            outputs = [args[0]]
        else:
            try:
                output = self._call_on_placeholders(func, args, kwargs)
            except Exception:  # the call needs values, or a tensor that can be written to
                return self._call_on_values(func, args, kwargs)
            outputs = tensors_in(output)
        if not outputs:
            return self._call_on_values(func, args, kwargs)
        chain.calls.append(ScoreCall(func, args, kwargs, outputs))
        merged = {id(c) for c in chains}
        for t in [t for t, c in self.chains.items() if id(c) in merged] if len(chains) > 1 else []:
            self.chains[t] = chain
        self.chains.update((t, chain) for t in outputs)
        return output

    @staticmethod
    def _call_on_placeholders(func: Any, args: Any, kwargs: Any) -> Any:
        """A placeholder in the shape and type of the output of a call."""
        name = getattr(func, "__name__", "")
        with torch.no_grad():
            if name in TIMES | PLUS | MINUS and len(args) == 2 and not kwargs:
                shapes = [t.shape for t in args if isinstance(t, Tensor)]
                first = next(t for t in args if isinstance(t, Tensor))
                dtype = torch.result_type(*args)
                return torch.zeros((), dtype=dtype, device=first.device).expand(torch.broadcast_shapes(*shapes))
            return func(*args, **kwargs)

    def _call_on_probabilities(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Run a call on probabilities; its output gets their visible mask if it moves values, or if zeros stay zero."""
        before = args[0] if args and isinstance(args[0], Tensor) and args[0] in self.visible else None
        visible = None if before is None else self.visible[before]
        if name in TIMES and before is None and len(args) > 1 and isinstance(args[1], Tensor):
            before, visible = args[1], self.visible.get(args[1])
        output = func(*args, **kwargs)
        if before is None or visible is None or name in METADATA:
            return output
        keeps_zeros = name in KEEPS_VALUES or name in TIMES or "dropout" in name
        keeps_zeros = keeps_zeros or (name in FILL and not isinstance(args[2], Tensor) and args[2] == 0)
        if keeps_zeros and isinstance(output, Tensor) and output.shape == before.shape:
            self.visible[output] = visible
        elif name in VIEWS and not is_in_place(func):
            moved = func(visible.expand(before.shape), *args[1:], **kwargs)
            for part, mask in zip(tensors_in(output), tensors_in(moved), strict=True):
                self.visible[part] = mask
        elif output is before or func is Tensor.__setitem__:
            self.visible.pop(before, None)
        return output

    def seen_by(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Contraction | None:
        """The product of a call on probabilities, with their visible mask [..., M, N] in their place; else None."""
        probabilities = [t for t in tensors_in((args, kwargs)) if t in self.visible]
        if len(probabilities) != 1:
            return None
        visible = self.visible[probabilities[0]].expand(probabilities[0].shape)
        changed = tree_map_only(Tensor, lambda t: visible if t is probabilities[0] else t, (args, kwargs))
        return as_contraction(func, *changed)
