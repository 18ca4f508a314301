"""Set the clip of K and V of a converted model."""

from __future__ import annotations

from torch import nn

from ohmformer.errors import check_type
from ohmformer.mitigation.spec import KVClip
from ohmformer.nn.convert.calibrate_ranges import calibrate_converters
from ohmformer.nn.convert.handle import crossbars, undone_on_failure
from ohmformer.nn.convert.unseen_ranges import warn_of_unseen
from ohmformer.nn.operands.kv import KVOperand


def set_clip(model: nn.Module, clip: KVClip | None) -> None:
    """Set the clip of K and V. Converter ranges that were calibrated are calibrated again, on the sample of `convert`.

    Args:
        model: a converted model; it is changed.
        clip: the clip; None for no clip.

    Raises:
        BadInput: the model was not converted, the arrays of K or V cannot have that clip, or another thread calls the
            model or changes its settings.
    """
    handle = crossbars(model)
    check_type("set_clip", "clip", clip, (KVClip, type(None)), "KVClip(alpha=..., beta=...) for all K and V, or None")
    if clip is not None:
        for operand in handle.operands:
            if isinstance(operand, KVOperand) and operand.plain_clip == "model":
                clip.check(operand.array)
    calibrated = any(operand.calibrates_converters() for operand in handle.operands)
    with handle.state.changing("set_clip", unfinished=True), undone_on_failure(handle):
        for operand in handle.operands:
            if isinstance(operand, KVOperand):
                operand.clip = operand.plain_clip
        handle.state.clip = clip
        if calibrated:
            calibrate_converters(model)
    if calibrated:
        warn_of_unseen(model, handle.operands, stacklevel=2)
