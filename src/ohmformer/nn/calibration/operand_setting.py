"""How one operand is protected: conditioning, clip and range, as a recipe set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ohmformer.mitigation.spec import Clip, Conditioning
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.kv_transform import Conditioner


@dataclass(frozen=True)
class OperandSetting:
    """Conditioning, clip and range of an operand.

    Attributes:
        conditioner: its conditioning with all that was fitted; None for none.
        clip: its clip, or one for each head.
        w_range: its calibrated range; None if ranges are those of the tokens.
    """

    conditioner: Conditioner | None
    clip: Any
    w_range: Tensor | None

    @staticmethod
    def of(operand: KVOperand) -> OperandSetting:
        """Return the setting of an operand."""
        return OperandSetting(operand.conditioner, operand.clip, operand.w_range)

    def apply_to(self, operand: KVOperand) -> None:
        """Set an operand in this way."""
        operand.condition(self.conditioner)
        operand.clip, operand.w_range = self.clip, self.w_range


def clips_of(settings: Mapping[str, OperandSetting]) -> dict[str, Clip | tuple[Clip, ...]]:
    """Operand -> its clip, for those that have one."""
    return {name: setting.clip for name, setting in settings.items() if setting.clip != "none"}


def conditionings_of(settings: Mapping[str, OperandSetting]) -> dict[str, Conditioning]:
    """Operand -> its conditioning, for those that have one."""
    return {name: setting.conditioner.spec for name, setting in settings.items() if setting.conditioner is not None}
