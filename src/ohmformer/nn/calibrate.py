"""Choosing ClipFormer's alpha and beta for one piece of hardware, on unlabelled calibration inputs.

N inputs, K classes: logits[N, K].
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ohmformer.errors import BadInput
from ohmformer.hardware.spec import Accelerator, CrossbarEngine
from ohmformer.mapping.spec import KVClip
from ohmformer.nn.batches import Inputs, size, take
from ohmformer.nn.capture import call
from ohmformer.nn.convert import set_chip, set_clip
from ohmformer.streams import samples

CHIP = -1
"""The chip that is calibrated on: none of 0, 1, ... that `monte_carlo` evaluates."""

ALPHAS = (0.0, 1.0, 2.0, 4.0, 8.0)
BETAS = (1.0, 0.5, 0.25)


def candidates(hardware: Accelerator, alphas: Sequence[float] = ALPHAS, betas: Sequence[float] = BETAS) -> list[KVClip]:
    """The grid of clips that leave something to write (beta r > 1), the gentlest first: least cut, least shifted."""
    engines = (hardware.attention.key, hardware.attention.value)
    arrays = [engine.array for engine in engines if isinstance(engine, CrossbarEngine)]
    grid = [KVClip(alpha=alpha, beta=beta) for beta, alpha in product(sorted(betas, reverse=True), sorted(alphas))]
    return [clip for clip in grid if all(clip.fits(array) for array in arrays)]


def choose_clip(
    model: nn.Module, converted: nn.Module, inputs: Inputs, clips: Sequence[KVClip], *, batch: int, seed: int = 0
) -> KVClip:
    """The clip with which the converted model speaks most like the original one; it is set on `converted`.

    The measure is the cross-entropy between the class probabilities of the original (as truth) and of the converted
    model; no labels are needed. All clips see the same noise, so they differ by what they do. Of equals the first is
    taken. `converted` is left on chip CHIP.

    Args:
        model: the original, in evaluation mode: inputs to logits [N, K] or [N, T, K], bare or as
            `logits` of what it returns.
        converted: what `convert` made of it.
        inputs: of N samples from a calibration set, never from the test set.
        clips: what to choose from, the gentlest first; see `candidates`.
        batch: inputs per call.
        seed: root of all noise.

    Raises:
        BadInput: there is nothing to choose from, or the model gives no logits.
    """
    if not clips or size(inputs) == 0:
        raise BadInput("choose_clip needs at least one clip and one input")
    truth = _log_probabilities(model, inputs, batch).exp()
    set_chip(converted, CHIP, seed=seed)
    losses: list[float] = []
    for clip in clips:
        set_clip(converted, clip)
        losses.append(float(-(truth * _log_probabilities(converted, inputs, batch)).sum(dim=-1).mean()))
    best = clips[losses.index(min(losses))]
    set_clip(converted, best)
    return best


def _log_probabilities(model: nn.Module, inputs: Inputs, batch: int) -> Tensor:
    """Log of the class probabilities [N, K] or [N, T, K] in float64."""
    found: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, size(inputs), batch):
            rows = take(inputs, slice(start, start + batch))
            with samples(f"calibration {start + n}" for n in range(size(rows))):
                logits = _logits(call(model, rows))
            found.append(F.log_softmax(logits.double(), dim=-1))
    return torch.cat(found)


def _logits(output: Any) -> Tensor:
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(found, Tensor):
        raise BadInput(
            f"choose_clip compares logits, but the model returns {type(output).__name__}; give the clip itself"
        )
    return found
