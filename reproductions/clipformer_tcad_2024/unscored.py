"""What a model may learn from in a study: inputs of its task that the study neither scores nor calibrates on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ohmformer.capture.inputs import Inputs, leaves, size, take
from ohmformer.errors import BadInput
from ohmformer.models.sources import split
from ohmformer.study.evaluate_point import RANGE_SAMPLES, REMEDY_SAMPLES
from ohmformer.tasks.load import make_task
from ohmformer.tasks.spec import TaskChoice
from ohmformer.tasks.task import Task

CALIBRATING = max(RANGE_SAMPLES, REMEDY_SAMPLES)
"""Maximum number of calibration inputs that a study calibrates on."""


@dataclass(frozen=True)
class Unscored:
    """Inputs to learn from.

    Attributes:
        inputs: of N samples.
        what: where they come from, in words.
        calibration: on which the study calibrates; none of them is among the others.
        task: of the study.
    """

    inputs: Inputs
    what: str
    calibration: Inputs
    task: Task

    @property
    def digest(self) -> str:
        """SHA-256 of what is learned from."""
        return hashlib.sha256("".join(keys(self.inputs)).encode()).hexdigest()


def unscored(choice: TaskChoice, model: nn.Module) -> Unscored:
    """What may be learned from: the samples that a probe is fitted on, the second half of a running text, or else what
    is left of the calibration set. Whatever is the same as something that is scored or calibrates is left out.

    Raises:
        BadInput: the task cannot be read, is of another kind, or nothing is left.
    """
    task = make_task(choice, model)
    if not all(isinstance(leaf, (Tensor, bool, int, float)) for _, leaf in leaves(task.inputs)):
        raise BadInput(f"{choice.where}: its inputs are files, not tensors; train_classifier.py is for photographs")
    calibration = take(task.calibration, slice(0, CALIBRATING))
    if split("task", choice.source)[0] == "text":
        found, what = _second_half(choice, model, len(task)), "windows of the second half of the text"
    elif task.train is not None:
        found, what = task.train[0], "samples that the probe is fitted on"
    else:
        found, what = take(task.calibration, slice(CALIBRATING, None)), "calibration samples that studies leave alone"
    seen = {*keys(task.inputs), *keys(calibration)}
    rows = [place for place, key in enumerate(keys(found)) if key not in seen]
    if not rows:
        raise BadInput(f"{choice.where}: has no samples to learn from that are not scored; give more of them")
    return Unscored(pick(found, rows), what, calibration, task)


def _second_half(choice: TaskChoice, model: nn.Module, scored: int) -> Inputs:
    """Windows far behind those that are scored, so that more may be scored later."""
    whole = make_task(choice.model_copy(update={"limit": None}), model)
    half = len(whole) // 2
    if scored > half:
        raise BadInput(
            f"task.limit = {choice.limit}: of {len(whole)} windows the second half is learned from, so at most {half} "
            "can be scored; lower it"
        )
    # The last window may be padded.
    return take(whole.inputs, slice(half, len(whole) - 1))


def pick(inputs: Inputs, rows: list[int]) -> Inputs:
    """The samples of some rows, in the same structure; padding that none of them needs is left out."""
    if isinstance(inputs, Tensor):
        return inputs[rows] if inputs.dim() else inputs
    if not isinstance(inputs, Mapping):
        return inputs
    found = {name: pick(value, rows) for name, value in inputs.items()}
    mask = found.get("attention_mask")
    if isinstance(mask, Tensor):
        longest = int(mask.any(dim=0).nonzero().max()) + 1
        found = {name: _cut(value, mask.shape, longest) for name, value in found.items()}
    return found


def _cut(value: Inputs, shape: torch.Size, longest: int) -> Inputs:
    return value[:, :longest] if isinstance(value, Tensor) and value.shape == shape else value


def keys(inputs: Inputs) -> list[str]:
    """One for each sample, the same for the same content, padding left out."""
    return [_key(take(inputs, slice(row, row + 1))) for row in range(size(inputs))]


def _key(sample: Inputs) -> str:
    mask = sample.get("attention_mask") if isinstance(sample, Mapping) else None
    found = hashlib.sha256()
    for path, leaf in leaves(sample):
        if isinstance(leaf, Tensor):
            kept = leaf[mask.bool()] if mask is not None and leaf.shape == mask.shape else leaf
            found.update(f"{path} {kept.dtype} {tuple(kept.shape)}\n".encode() + kept.contiguous().numpy().tobytes())
    return found.hexdigest()
