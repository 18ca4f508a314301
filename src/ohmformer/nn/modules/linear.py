"""A linear layer with weights on crossbars: `nn.Linear` with another `forward`; parameters keep their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn
from torch.nn.utils import parametrize

from ohmformer.capture.torch_private import unintercepted
from ohmformer.nn.modules.compile_guard import eager
from ohmformer.nn.modules.describing import joined, on_arrays
from ohmformer.nn.modules.intercept import with_values
from ohmformer.nn.operands.plain_calls import refuse_scripting, refuse_transforms
from ohmformer.nn.operands.weight import WeightOperand
from ohmformer.nn.shared.given_up import check_frozen, warn_of_gradients


class CrossbarLinear(nn.Linear):
    """`nn.Linear` whose weight lives on crossbars: x[B, ..., in] to [B, ..., out]; the bias is added digitally."""

    ohmformer_own = True
    ohmformer_weight: WeightOperand

    @eager
    def forward(self, input: Tensor) -> Tensor:
        refuse_transforms(input)
        operand = self.ohmformer_weight
        with unintercepted():  # the products of the simulation itself
            if frames := operand.state.threads.here.frames:
                input = with_values(frames, input)
            weight, bias = self._weight(), self.bias
            if input.dim() > 1:
                y = operand.product(input, weight, bias=bias)
            else:
                y = operand.product(input[None], weight, bias=bias)[0]
            if y.requires_grad and operand.released and self.weight.requires_grad:
                y.register_hook(warn_of_gradients)
            return y

    __prepare_scriptable__ = refuse_scripting

    def _weight(self) -> Tensor:
        """The weights; or what stands in their place, without gradients."""
        operand = self.ohmformer_weight
        if not operand.released:
            return self.weight
        check_frozen(operand.name, self.weight, training=self.training)
        return self.weight.detach()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As `nn.Linear`, for `to` and the like; what stands in the place of given up weights stays as it is."""
        kept = {"weight": self._parameters.pop("weight")} if self.ohmformer_weight.released else {}
        try:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        finally:
            self._parameters = {**kept, **self._parameters}
        return self

    def extra_repr(self) -> str:
        """As `nn.Linear`, followed by the arrays that hold the weight."""
        return joined(super().extra_repr(), on_arrays("weight", self.ohmformer_weight))


def is_plain_linear(module: nn.Module) -> bool:
    """True if a module is `nn.Linear`, or a subclass that computes in the same way, and its class may be swapped.

    The class of a parametrized module computes its parametrized weight or bias.
    """
    plain = isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward
    return plain and not parametrize.is_parametrized(module)
