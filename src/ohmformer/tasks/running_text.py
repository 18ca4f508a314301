"""Perplexity of a causal language model on running text, as `text:FILE` or a bundled text.

N windows of W tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ohmformer.capture.inputs import Inputs
from ohmformer.errors import BadInput, shown
from ohmformer.models.preprocessing import preparation, tokenizer_of
from ohmformer.models.sources import bundled_file, existing, first_line, is_failure, split
from ohmformer.models.tokenizers import check_known, check_token_ids
from ohmformer.tasks.metric_kinds import METRICS, is_allowed, label_kind
from ohmformer.tasks.reading import IGNORED, Reading
from ohmformer.tasks.spec import TaskChoice
from ohmformer.tasks.task import Task
from ohmformer.textfiles import LARGEST_TEXT, read_text

WINDOW = 256
"""Default number of tokens in a window."""

CALIBRATION = 4
"""Default number of windows, from the beginning of the text, that calibrate."""


@dataclass(frozen=True)
class _Windows:
    """Token numbers and masks of N windows, and the labels [N, W] of their tokens."""

    inputs: Inputs
    labels: Tensor


def text_task(choice: TaskChoice, model: nn.Module | None) -> Task:
    """Cut a text into windows of tokens. A window starts every `stride` tokens and scores the tokens not scored before.

    The first windows calibrate; scored windows start behind them. If windows do not overlap, the first token of each
    window has no context and is not scored.

    Args:
        choice: the task, with window and stride.
        model: a causal language model from `load_model`, with its tokenizer.

    Raises:
        BadInput: the file is not text or too short for the windows, or the model cannot process the windows.
    """
    bundled = split("task", choice.source)[0] == "bundled"
    file = bundled_file("task", choice.source) if bundled else existing("task", choice.source)
    if not is_allowed(choice.metric, "text", ("perplexity",)):
        raise BadInput(f"task.metric = {shown(choice.metric)}: running text has perplexity; leave it out")
    if choice.metric and (kind := label_kind(choice.metric)) not in ("tokens", "none"):
        raise BadInput(
            f"task.metric = {shown(choice.metric)}: reads labels of the kind {kind!r}, but those of running text are "
            f"tokens; set labels = 'tokens' in {type(METRICS[choice.metric]).__name__}"
        )
    if choice.probe or choice.labels:
        raise BadInput(f"{choice.where}: running text has no classes; leave out probe and labels")
    tokenizer = tokenizer_of(model, choice.source)
    window, stride = _sizes(choice, preparation(model).max_tokens)
    text = read_text(file, LARGEST_TEXT).replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise BadInput(f"{file}: holds no text but spaces; take another file")
    try:
        ids = tokenizer(text, verbose=False)["input_ids"]
    except BaseException as error:
        if not is_failure(error):
            raise
        raise BadInput(
            f"{file}: the model's tokenizer fails on it ({first_line(error)}); choose another model"
        ) from error
    notes = check_known(choice.where, tokenizer, [ids])
    tokens = torch.tensor(ids, dtype=torch.int64)
    check_token_ids(choice.where, tokens, preparation(model).words)
    calibrating = (choice.calibration or CALIBRATION) * window
    if len(tokens) - calibrating < window + 2:
        raise BadInput(
            f"{choice.where}: has {len(tokens)} tokens but needs {calibrating + window + 2} ({calibrating} of them for "
            "calibration): give a longer text, or lower task.window or task.calibration"
        )
    pad = tokenizer.pad_token_id or 0
    test = _windows(tokens[calibrating:], window, stride, pad)
    calibration = _windows(tokens[:calibrating], window, window, pad)
    return Task(
        choice.source,
        test.inputs,
        test.labels,
        calibration.inputs,
        calibration.labels,
        metric=choice.metric or "perplexity",
        reading=Reading(prefill=choice.prefill, step=choice.step),
        notes=notes,
    ).first(choice.limit)


def _sizes(choice: TaskChoice, longest: int | None) -> tuple[int, int]:
    """Return window and stride [tokens], for a model that takes at most `longest` tokens."""
    window = choice.window or min(WINDOW, longest or WINDOW)
    if longest is not None and window > longest:
        raise BadInput(f"task.window = {window}: the model takes at most {longest} tokens; lower it")
    stride = choice.stride or window
    if window < 2 or stride > window:
        raise BadInput(f"task.stride = {stride}: must be from 1 to the window, {window}, which must be 2 or more")
    if choice.prefill is not None and choice.prefill >= window:
        raise BadInput(f"task.prefill = {choice.prefill}: must be below the window of {window} tokens; lower it")
    return window, stride


def _windows(tokens: Tensor, window: int, stride: int, pad: int) -> _Windows:
    """Cut tokens into windows [N, W] with labels [N, W]: each token at its own position, `IGNORED` if not scored."""
    ids, masks, labels, scored_until = [], [], [], 1
    for start in range(0, len(tokens), stride):
        part = tokens[start : start + window]
        targets = part.clone()
        targets[: max(1, scored_until - start)] = IGNORED
        if bool((targets != IGNORED).any()):
            padding = window - len(part)
            ids.append(F.pad(part, (0, padding), value=pad))
            masks.append(F.pad(torch.ones_like(part), (0, padding), value=0))
            labels.append(F.pad(targets, (0, padding), value=IGNORED))
        scored_until = start + len(part)
        if scored_until >= len(tokens):
            break
    inputs = {"input_ids": torch.stack(ids), "attention_mask": torch.stack(masks), "use_cache": False}
    return _Windows(inputs, torch.stack(labels))
