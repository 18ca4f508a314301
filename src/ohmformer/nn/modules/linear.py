"""A linear layer with weights on crossbars: `nn.Linear` with another `forward`; parameters keep their names."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import parametrize

from ohmformer.capture.torch_private import unintercepted
from ohmformer.nn.modules.compile_guard import eager
from ohmformer.nn.modules.describing import joined, on_arrays
from ohmformer.nn.modules.intercept import with_values
from ohmformer.nn.operands.plain_calls import refuse_scripting, refuse_transforms
from ohmformer.nn.operands.weight import WeightOperand


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
            if input.dim() > 1:
                return operand.product(input, self.weight, bias=self.bias)
            return operand.product(input[None], self.weight, bias=self.bias)[0]

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
