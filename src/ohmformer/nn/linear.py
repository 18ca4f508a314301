"""Layers with weights on crossbars. Each is its digital class with another `forward`; parameters keep their names."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ohmformer.nn.static import StaticOperand


class CrossbarLinear(nn.Linear):
    """`nn.Linear` whose weight lives on crossbars: x[B, ..., in] to [B, ..., out]; the bias is added digitally."""

    weight_operand: StaticOperand

    def forward(self, input: Tensor) -> Tensor:
        y = self.weight_operand.product(input, self.weight)
        return y if self.bias is None else y + self.bias


class CrossbarConv2d(nn.Conv2d):
    """`nn.Conv2d` (one group) as a matrix product over patches: images [B, C, H, W] to [B, out, H', W']."""

    weight_operand: StaticOperand

    def forward(self, input: Tensor) -> Tensor:
        size, stride, dilation = self.kernel_size, self.stride, self.dilation
        top, left = (0, 0) if isinstance(self.padding, str) else self.padding
        padded = F.pad(input, (left, left, top, top))
        patches = F.unfold(padded, size, dilation=dilation, stride=stride).transpose(1, 2)
        y = self.weight_operand.product(patches, self.weight.flatten(1)).transpose(1, 2)
        height = (padded.shape[2] - dilation[0] * (size[0] - 1) - 1) // stride[0] + 1
        y = y.reshape(*y.shape[:2], height, -1)
        return y if self.bias is None else y + self.bias[:, None, None]


def crossbar_layer(module: nn.Module) -> tuple[type[nn.Module] | None, str]:
    """The class that puts a layer with weights on crossbars, or None and the reason why there is none."""
    name = type(module).__name__
    if not isinstance(module, (nn.Linear, nn.Conv2d)):
        return None, f"{name} is not converted"
    if type(module).forward not in (nn.Linear.forward, nn.Conv2d.forward):
        return None, f"{name} has a forward of its own"
    if module._parameters.get("weight") is None:
        return None, f"the weight of {name} is computed from other parameters"
    if isinstance(module, nn.Linear):
        return CrossbarLinear, ""
    if module.groups != 1:
        return None, f"{name} has groups"
    if module.padding_mode != "zeros" or module.padding == "same":
        return None, f"{name} pads by {module.padding_mode if module.padding_mode != 'zeros' else 'same'}"
    return CrossbarConv2d, ""
