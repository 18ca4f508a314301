"""A linear layer with weights on crossbars: `nn.Linear` with another `forward`; parameters keep their names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ohmformer.capture.torch_private import unintercepted
from ohmformer.nn.modules.compile_guard import eager
from ohmformer.nn.modules.describing import joined, on_arrays
from ohmformer.nn.modules.intercept import with_values
from ohmformer.nn.operands.plain_calls import refuse_scripting, refuse_transforms
from ohmformer.nn.operands.weight import WeightOperand


class AddedBias(torch.autograd.Function):
    """y + bias in the memory of y, which nothing else may use: its derivatives are those of a sum."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor) -> Tensor:
        """y[..., out] and bias[out] of one type."""
        return y.detach().add_(bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Gradients for y and the bias."""
        (grad,) = grads
        of_bias = grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return grad if ctx.needs_input_grad[0] else None, of_bias


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
            y = operand.product(input, self.weight) if input.dim() > 1 else operand.product(input[None], self.weight)[0]
            if self.bias is None:
                return y
            if y.dtype is not self.bias.dtype:
                return y + self.bias
            # In place, as nothing else needs y: a new tensor of that size takes more time than the addition.
            with_gradients = y.requires_grad or (torch.is_grad_enabled() and self.bias.requires_grad)
            if with_gradients:
                return AddedBias.apply(y, self.bias)  # type: ignore[no-any-return, no-untyped-call]
            return y.add_(self.bias)

    __prepare_scriptable__ = refuse_scripting

    def extra_repr(self) -> str:
        """As `nn.Linear`, followed by the arrays that hold the weight."""
        return joined(super().extra_repr(), on_arrays("weight", self.ohmformer_weight))


def is_plain_linear(module: nn.Module) -> bool:
    """True if a module is `nn.Linear`, or a subclass that computes in the same way, and its class may be swapped.

    The class of a parametrized module computes its parametrized weight or bias.
    """
    plain = isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward
    return plain and not parametrize.is_parametrized(module)
