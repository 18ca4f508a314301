"""Run a model on batches of samples, also through a KV cache, and read logits, features or token losses from it.

B samples, T tokens, D features, K classes or words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ohmformer.capture.inputs import Inputs, batches, call, leaves, take
from ohmformer.errors import BadInput
from ohmformer.models.sources import first_line
from ohmformer.streams import samples
from ohmformer.tasks.reading import IGNORED, Reading

T = TypeVar("T")


def run_batches(
    model: nn.Module, inputs: Inputs, batch: int, compute: Callable[[nn.Module, Inputs], Tensor], set_name: str = ""
) -> Iterator[tuple[slice, Tensor]]:
    """Run a model on one batch after the other, and key the noise of a converted model by sample number.

    Args:
        model: a model in evaluation mode.
        inputs: inputs of N samples.
        batch: samples per call; the last call may have fewer.
        compute: function of the model and a batch of inputs that returns a tensor with one row per sample.
        set_name: name of the set of samples, if it is not the test set. It is part of the key of their noise.

    Yields:
        The rows of a batch, as a slice of the samples, and the result of `compute` for them.

    Raises:
        BadInput: batch is not a whole number of 1 or more, or the model fails.
    """
    with torch.inference_mode():
        for rows in batches(inputs, batch):
            numbers = range(rows.start, rows.stop)
            with samples([f"{set_name} {number}" for number in numbers] if set_name else numbers):
                what = f"{set_name} samples" if set_name else "samples"
                yield rows, run_model(model, take(inputs, rows), compute, what, rows)


def run_model(
    model: nn.Module,
    inputs: Inputs,
    compute: Callable[[nn.Module, Inputs], T],
    what: str = "samples",
    rows: slice | None = None,
) -> T:
    """Run a model on some inputs; whatever it raises becomes a message of one line.

    Args:
        model: any model.
        inputs: inputs of some samples.
        compute: function of the model and the inputs.
        what: what the inputs are, for the message.
        rows: which of the samples the inputs are, for the message.

    Returns:
        The result of `compute`.

    Raises:
        BadInput: the model fails on these inputs.
    """
    try:
        return compute(model, inputs)
    except (BadInput, KeyboardInterrupt):
        raise
    except BaseException as error:  # also those by which code of the user would end the process
        shapes = "; ".join(f"{path or 'inputs'} {_shape_and_dtype(leaf)}" for path, leaf in leaves(inputs))
        which = f" {rows.start} to {rows.stop - 1}" if rows else ""
        raise BadInput(
            f"{type(model).__name__} fails on {what}{which} ({first_line(error)}); the inputs are {shapes}: "
            "choose a model and a task that fit each other"
        ) from error


def _shape_and_dtype(leaf: Any) -> str:
    return (
        f"{list(leaf.shape)} {str(leaf.dtype).removeprefix('torch.')}" if isinstance(leaf, Tensor) else repr(leaf)[:80]
    )


def logits(output: Any) -> Any:
    """Return the class scores in a model's output: the attribute `logits`, the first item of a tuple, or the output."""
    if isinstance(output, tuple) and output and not hasattr(output, "logits"):
        return output[0]
    scores = getattr(output, "logits", None)
    return output if scores is None else scores


def features(output: Any, inputs: Inputs, reading: Reading) -> Tensor:
    """Return one feature vector per sample from a model's output.

    Matrices and logits are taken unchanged. Token features [B, T, D] are pooled: the mean over tokens that are not
    padding, or the first token. `auto` takes the model's own pooled output if it returns one, else the mean.

    Args:
        output: what the model returned.
        inputs: what the model was called with; its `attention_mask` marks padding.
        reading: how token features are pooled.

    Returns:
        Features [B, D], float32.

    Raises:
        BadInput: the output holds no features.
    """
    pooled, tokens = getattr(output, "pooler_output", None), getattr(output, "last_hidden_state", None)
    vectors = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if reading.pooling == "auto" and isinstance(pooled, Tensor):
        vectors = pooled
    elif isinstance(tokens, Tensor):
        vectors = tokens
    elif isinstance(output, tuple) and output:
        vectors = output[0]
    if not isinstance(vectors, Tensor) or vectors.dim() < 2:
        raise BadInput(f"the model returns {type(output).__name__}, without features [samples, ...]; wrap it")
    if vectors.dim() == 3:
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        vectors = (_first_token if reading.pooling == "cls" else _masked_mean)(vectors, mask)
    return vectors.flatten(1).float()


def _first_token(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Features [B, D] of the first of the tokens [B, T, D] whose mask [B, T] is 1; padding may stand before it."""
    if mask is None or mask.shape != tokens.shape[:2]:
        return tokens[:, 0]
    return tokens[torch.arange(len(tokens), device=tokens.device), mask.long().argmax(dim=1)]


def _masked_mean(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Mean [B, D] of token features [B, T, D] over the tokens whose mask [B, T] is 1."""
    if mask is None or mask.shape != tokens.shape[:2]:
        return tokens.mean(dim=1)
    weight = mask.to(tokens.dtype).unsqueeze(-1)
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def token_losses(model: nn.Module, inputs: Inputs, labels: Tensor, reading: Reading) -> Tensor:
    """Return the mean negative log-likelihood [B] of the scored tokens of each window.

    Args:
        model: a causal language model.
        inputs: `input_ids` and `attention_mask` [B, T].
        labels: [B, T] token numbers; `IGNORED` where a token is not scored.
        reading: whether tokens go through a KV cache.

    Raises:
        BadInput: the model does not return logits [B, T, K].
    """
    scores = logits(call(model, inputs)) if reading.prefill is None else _cached_logits(model, inputs, reading)
    if not isinstance(scores, Tensor) or scores.dim() != 3 or scores.shape[:2] != labels.shape:
        what = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise BadInput(
            f"{type(model).__name__} returns {what}; choose a language model that returns logits [B, T, words]"
        )
    targets = labels[:, 1:].long()
    losses = F.cross_entropy(scores[:, :-1].transpose(1, 2).double(), targets, ignore_index=IGNORED, reduction="none")
    return losses.sum(dim=1) / (targets != IGNORED).sum(dim=1)


def _cached_logits(model: nn.Module, inputs: Inputs, reading: Reading) -> Tensor:
    """Logits [B, T, K] of windows that enter a KV cache: first `prefill` tokens, then `step` tokens at a time."""
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
