"""Perplexity of a causal language model on running text, as `text:FILE`.

N windows of W tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ohmformer.errors import BadInput
from ohmformer.models.preprocessing import preparation, tokenizer_of
from ohmformer.models.sources import existing, first_line
from ohmformer.models.tokenizers import check_known, check_numbers
from ohmformer.tasks.load import IGNORED, Inputs, Reading, Task
from ohmformer.tasks.metric import goes_with
from ohmformer.tasks.spec import TaskChoice

WINDOW = 256
"""Tokens that a model sees at a time, unless a task says otherwise."""

CALIBRATION = 4
"""Windows from the beginning of the text that calibrate, unless a task says otherwise."""


@dataclass(frozen=True)
class _Windows:
    inputs: Inputs
    labels: Tensor


def text_task(choice: TaskChoice, model: nn.Module | None) -> Task:
    """A text as windows of tokens: one starts every `stride` tokens and scores what the one before it has not scored.

    The first windows calibrate; what they hold is neither scored nor seen again. Where windows do not overlap, the
    first token of each has no context and is not scored.

    Raises:
        BadInput: a file that is no text, or too short for the windows, or windows that the model does not take.
    """
    file = existing("task", choice.source)
    if not goes_with(choice.metric, "text", ("perplexity",)):
        raise BadInput(f"task.metric = {choice.metric!r}: running text has perplexity; leave it out")
    if choice.probe or choice.labels:
        raise BadInput(f"{choice.where}: running text has no classes; leave out probe and labels")
    tokenizer = tokenizer_of(model, choice.source)
    window, stride = _sizes(choice, preparation(model).max_tokens)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: is no text in UTF-8 ({first_line(error)}); convert it") from error
    if "\0" in text:
        raise BadInput(f"{file}: is no text in UTF-8 (it holds NUL characters, as UTF-16 does); convert it")
    try:
        ids = tokenizer(text, verbose=False)["input_ids"]
    except Exception as error:
        raise BadInput(
            f"{file}: the model's tokenizer fails on it ({first_line(error)}); take another model"
        ) from error
    notes = check_known(choice.where, tokenizer, [ids]) if text.strip() else ()
    tokens = torch.tensor(ids, dtype=torch.int64)
    check_numbers(choice.where, tokens, preparation(model).words)
    held = (choice.calibration or CALIBRATION) * window
    if len(tokens) - held < window + 2:
        raise BadInput(
            f"{choice.where}: has {len(tokens)} tokens, of which {held} calibrate; {held + window + 2} are needed at "
            "least: give a longer text, or lower task.window or task.calibration"
        )
    pad = tokenizer.pad_token_id or 0
    scored = _windows(tokens[held:], window, stride, pad)
    calibrating = _windows(tokens[:held], window, window, pad)
    return Task(
        choice.source,
        scored.inputs,
        scored.labels,
        calibrating.inputs,
        calibrating.labels,
        metric="perplexity",
        reading=Reading(prefill=choice.prefill, step=choice.step),
        notes=notes,
    ).first(choice.limit)


def _sizes(choice: TaskChoice, longest: int | None) -> tuple[int, int]:
    window = choice.window or min(WINDOW, longest or WINDOW)
    if longest is not None and window > longest:
        raise BadInput(f"task.window = {window}: the model takes {longest} tokens; lower it")
    stride = choice.stride or window
    if window < 2 or stride > window:
        raise BadInput(f"task.stride = {stride}: must be from 1 to the window, {window}, which must be 2 or more")
    if choice.prefill is not None and choice.prefill >= window:
        raise BadInput(f"task.prefill = {choice.prefill}: leaves nothing of a window of {window} tokens; lower it")
    return window, stride


def _windows(tokens: Tensor, window: int, stride: int, pad: int) -> _Windows:
    """Windows [N, W], and labels [N, W]: each token at its own place, `IGNORED` where it is not scored."""
    ids, masks, labels, done = [], [], [], 1
    for start in range(0, len(tokens), stride):
        part = tokens[start : start + window]
        wanted = part.clone()
        wanted[: max(1, done - start)] = IGNORED
        if bool((wanted != IGNORED).any()):
            short = window - len(part)
            ids.append(torch.nn.functional.pad(part, (0, short), value=pad))
            masks.append(torch.nn.functional.pad(torch.ones_like(part), (0, short), value=0))
            labels.append(torch.nn.functional.pad(wanted, (0, short), value=IGNORED))
        done = start + len(part)
        if done >= len(tokens):
            break
    inputs = {"input_ids": torch.stack(ids), "attention_mask": torch.stack(masks), "use_cache": False}
    return _Windows(inputs, torch.stack(labels))
