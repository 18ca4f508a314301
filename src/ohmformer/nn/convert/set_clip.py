"""Set another clip of K and V on a converted model."""

from __future__ import annotations

from torch import nn

from ohmformer.mitigation.spec import KVClip
from ohmformer.nn.convert.calibrate_ranges import calibrate_converters
from ohmformer.nn.convert.handle import crossbars
from ohmformer.nn.convert.unseen_ranges import warn_of_unseen
from ohmformer.nn.operands.kv import KVOperand


def set_clip(model: nn.Module, clip: KVClip | None) -> None:
    """Another clip of K and V, or none. Calibrated converter ranges are calibrated again, as in `convert`.

    Raises:
        BadInput: the arrays of K or V cannot have that clip, or another thread is inside a call of the model, or
            changes its settings.
    """
    found = crossbars(model)
    if clip is not None:
        for operand in found.operands:
            if isinstance(operand, KVOperand) and operand.plain_clip == "model":
                clip.check(operand.array)
    calibrated = any(operand.calibrates_converters() for operand in found.operands)
    with found.state.changing("set_clip", unfinished=True):
        for operand in found.operands:
            if isinstance(operand, KVOperand):
                operand.clip = operand.plain_clip
        found.state.clip = clip
        if calibrated:
            calibrate_converters(model)
    if calibrated:
        warn_of_unseen(model, found.operands, stacklevel=2)
