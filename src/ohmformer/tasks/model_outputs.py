"""What a model said, whatever it returns: logits, features, or likelihoods of tokens.

B samples, T tokens, D features, K classes or words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ohmformer.capture.inputs import Inputs, batches, call, take
from ohmformer.errors import BadInput
from ohmformer.streams import samples
from ohmformer.tasks.load import IGNORED, Reading


def asked(
    model: nn.Module, inputs: Inputs, batch: int, ask: Callable[[nn.Module, Inputs], Tensor], name: str = ""
) -> Iterator[tuple[slice, Tensor]]:
    """(rows, answer) batch by batch, where sample n is sample n to the noise of a converted model.

    Args:
        model: in evaluation mode.
        inputs: of N samples.
        batch: samples per call; the last call may have fewer.
        ask: model and inputs to a tensor with one row per sample.
        name: of the set, where its samples are others than those of the test set.

    Raises:
        BadInput: batch is no whole number of 1 or more.
    """
    with torch.inference_mode():
        for rows in batches(inputs, batch):
            numbers = range(rows.start, rows.stop)
            with samples([f"{name} {number}" for number in numbers] if name else numbers):
                yield rows, ask(model, take(inputs, rows))


def logits(output: Any) -> Any:
    """The class scores in what a model returns: a tensor itself, its `logits`, or the first of a tuple."""
    if isinstance(output, tuple) and output and not hasattr(output, "logits"):
        return output[0]
    found = getattr(output, "logits", None)
    return output if found is None else found


def features(output: Any, inputs: Inputs, reading: Reading) -> Tensor:
    """One vector for each sample [B, D] float32, of whatever a model returns.

    A matrix is taken as it is, and so are logits. Of token features [B, T, D] the mean is taken over tokens that are no
    padding, or the first token; `auto` takes the model's own pooled output if it has one, else the mean.

    Raises:
        BadInput: the output holds nothing of that kind.
    """
    pooled, tokens = getattr(output, "pooler_output", None), getattr(output, "last_hidden_state", None)
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if reading.pooling == "auto" and isinstance(pooled, Tensor):
        found = pooled
    elif isinstance(tokens, Tensor):
        found = tokens
    elif isinstance(output, tuple) and output:
        found = output[0]
    if not isinstance(found, Tensor) or found.dim() < 2:
        raise BadInput(f"the model returns {type(output).__name__}, without features [samples, ...]; wrap it")
    if found.dim() == 3:
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        found = found[:, 0] if reading.pooling == "cls" else _mean(found, mask)
    return found.flatten(1).float()


def _mean(tokens: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None or mask.shape != tokens.shape[:2]:
        return tokens.mean(dim=1)
    weight = mask.to(tokens.dtype).unsqueeze(-1)
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def token_losses(model: nn.Module, inputs: Inputs, labels: Tensor, reading: Reading) -> Tensor:
    """Mean negative log-likelihood [B] of the tokens of each window that are scored (labels [B, T])."""
    said = logits(call(model, inputs)) if reading.prefill is None else _cached(model, inputs, reading)
    if not isinstance(said, Tensor) or said.dim() != 3 or said.shape[:2] != labels.shape:
        what = list(said.shape) if isinstance(said, Tensor) else type(said).__name__
        raise BadInput(
            f"{type(model).__name__} returns {what}; give a language model that returns logits [B, T, words]"
        )
    wanted = labels[:, 1:]
    losses = F.cross_entropy(said[:, :-1].transpose(1, 2).double(), wanted, ignore_index=IGNORED, reduction="none")
    return losses.sum(dim=1) / (wanted != IGNORED).sum(dim=1)


def _cached(model: nn.Module, inputs: Inputs, reading: Reading) -> Tensor:
    """Logits [B, T, K] of windows that enter a KV cache: first `prefill` tokens, then `step` at a time."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    parts: list[Tensor] = []
    cache, start = None, 0
    while start < ids.shape[1]:
        stop = min(start + (reading.step if start else reading.prefill or 1), ids.shape[1])
        output = model(
            input_ids=ids[:, start:stop], attention_mask=mask[:, :stop], past_key_values=cache, use_cache=True
        )
        cache = output.past_key_values
        parts.append(output.logits)
        start = stop
    return torch.cat(parts, dim=1)
