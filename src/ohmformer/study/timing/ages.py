"""Ages of K and V for the accuracy of a point, from the timeline of its cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from torch import Tensor

from ohmformer.errors import BadInput
from ohmformer.hardware.ages import Ages
from ohmformer.study.loaded import loaded
from ohmformer.study.spec import CostModel, CostOptions, CostSettings, Settings
from ohmformer.tasks.task import Task

KEPT = 64
"""Points of the cost half whose ages a process keeps."""


def ages_of(settings: Settings) -> Ages | None:
    """The times at which tokens of K and V are written and read; None if the study takes no timeline.

    The timeline is that of one sample, with the longest texts of the task; with `model.generate`, that of a request.

    Args:
        settings: of the point.

    Raises:
        BadInput: the cost half has no price or no times for the point, or texts of the task are longer than the
            timeline.
    """
    timing, age = settings.timing, settings.simulation.age
    if timing is None:
        return None
    _, task = loaded(settings.model, settings.task)
    timing = timing.model_copy(update={"cost": CostOptions()})  # a rate of passes changes no times within a pass
    model, longest = timing.model, _longest_text(task)
    if model.seq_len is None and model.generate is None and longest is not None:
        timing = timing.model_copy(update={"model": model.model_copy(update={"seq_len": longest})})
    try:
        ages = _timeline_ages(timing)
        _check_length(ages, timing.model, task)
    except BadInput as error:
        raise BadInput(f"simulation.age = {age!r}: {error}") from error
    return replace(ages, encoder="longest" if age == "timeline_longest" else "mean")


@lru_cache(maxsize=KEPT)
def _timeline_ages(timing: CostSettings) -> Ages:
    """The ages of the first sample of a point of the cost half."""
    if timing.model.generate is not None:
        from ohmformer.study.serving import served_of

        return served_of(timing).ages()
    from ohmformer.study.cost import runs_of

    return runs_of(timing)[0].timeline.ages()


def _check_length(ages: Ages, model: CostModel, task: Task) -> None:
    """Refuse texts with more tokens than a timeline of a stated length.

    Raises:
        BadInput: the task has such a text.
    """
    needed = max((_tokens(inputs) for inputs in (task.inputs, task.calibration)), default=0)
    known = min((len(operand.written) for operand in ages.operands), default=needed)
    if known >= needed or model.seq_len is None or any(operand.across for operand in ages.operands):
        return
    if model.generate is None:
        raise BadInput(
            f"model.seq_len = {model.seq_len}: texts of the task have up to {needed} tokens; raise it to {needed}, or "
            "leave it out"
        )
    raise BadInput(
        f"model.generate = {model.generate}: a prompt of {model.seq_len} tokens and all generated ones but the last, "
        f"which is never written, are {known} tokens, and texts of the task have up to {needed}; raise it to "
        f"{needed - model.seq_len + 1}"
    )


def _tokens(inputs: Any) -> int:
    """The largest number of tokens of an input, without padding where a mask marks it; 0 if inputs are no texts."""
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if isinstance(mask, Tensor) and mask.dim() == 2 and len(mask):
        return int(mask.sum(dim=1).max())
    return _length(inputs) or 0


def _longest_text(task: Task) -> int | None:
    """The largest number of tokens of an input of a task; None if inputs are no texts."""
    lengths = [_length(inputs) for inputs in (task.inputs, task.calibration)]
    known = [length for length in lengths if length is not None]
    return max(known) if known and len(known) == len(lengths) else None


def _length(inputs: Any) -> int | None:
    """The number of tokens of inputs; None if they are no texts."""
    words = inputs.get("input_ids") if isinstance(inputs, Mapping) else inputs
    if not isinstance(words, Tensor) or words.dim() != 2 or words.is_floating_point():
        return None
    return int(words.shape[1])
