"""Samples with a KV cache, made from a sample and the number of cached tokens, for models of Hugging Face.

Shapes: B samples, M new tokens, N tokens in the cache.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ohmformer.errors import BadInput

_ANY_TOKEN = 0
"""Token id of cached and first tokens; any id will do, since only shapes count."""


@dataclass(frozen=True)
class TracedPass:
    """One forward pass to trace.

    Attributes:
        model: the model, or its encoder alone.
        sample: the batch to call it with, including its cache.
        cached_tokens: N, the tokens in the cache.
        cache: keys and values [B, H, N, d] of the cache.
    """

    model: nn.Module
    sample: Any
    cached_tokens: int
    cache: tuple[Tensor, ...]


def prepare(model: nn.Module, sample: Any, phase: str | None, context: int | None) -> TracedPass:
    """Complete a sample: with a cache of `context` tokens, and with a first token for a decoder without input.

    Raises:
        BadInput: the model has no cache, or the sample does not fit the phase or the context.
    """
    encoder_decoder = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
    if encoder_decoder or takes(model, "past_key_values"):
        sample = _as_mapping(model, sample)
    if encoder_decoder and phase == "encode":
        encoder = model.get_encoder() if hasattr(model, "get_encoder") else model  # type: ignore[operator]
        return TracedPass(encoder, _without_prefix(sample, "decoder_"), 0, ())
    if encoder_decoder:
        sample = _with_first_token(model, sample)
    cache = sample.get("past_key_values") if isinstance(sample, Mapping) else None
    if cache is not None:
        return _pass_with_cache_of_sample(model, sample, cache, context)
    if not context:
        return TracedPass(model, sample, 0, ())
    return _pass_with_new_cache(model, sample, phase, context, encoder_decoder)


def takes(model: nn.Module, name: str) -> bool:
    """True if the `forward` of a model has an argument of that name."""
    return name in inspect.signature(model.forward).parameters


def new_tokens(sample: Any) -> int | None:
    """M, the new tokens per sample; None if no argument of the sample is known to hold tokens."""
    for name in ("decoder_input_ids", "decoder_inputs_embeds", "input_ids", "inputs_embeds"):
        value = sample.get(name) if isinstance(sample, Mapping) else None
        if isinstance(value, Tensor) and value.dim() >= 2:
            return int(value.shape[1])
    return None


def _as_mapping(model: nn.Module, sample: Any) -> Any:
    """The sample as a mapping from the names of the model's arguments."""
    if isinstance(sample, Mapping):
        return sample
    values = tuple(sample) if isinstance(sample, (tuple, list)) else (sample,)
    return dict(zip(inspect.signature(model.forward).parameters, values, strict=False))


def _without_prefix(sample: Any, prefix: str) -> Any:
    """The sample without the arguments whose names begin with a prefix."""
    if not isinstance(sample, Mapping):
        return sample
    return {name: value for name, value in sample.items() if not name.startswith(prefix)}


def _with_first_token(model: nn.Module, sample: Any) -> Any:
    """The sample with one token for the decoder, if the model takes decoder tokens and the sample has none."""
    if not takes(model, "decoder_input_ids"):
        return sample
    needs_token = isinstance(sample, Mapping) and not any(
        sample.get(name) is not None for name in ("decoder_input_ids", "decoder_inputs_embeds", "labels")
    )
    first = next((value for value in sample.values() if isinstance(value, Tensor)), None) if needs_token else None
    if first is None:
        return sample
    token = torch.full((first.shape[0], 1), _ANY_TOKEN, dtype=torch.long, device=first.device)
    return {**sample, "decoder_input_ids": token}


def _pass_with_cache_of_sample(
    model: nn.Module, sample: Mapping[str, Any], cache: Any, context: int | None
) -> TracedPass:
    """The pass on a sample that has `past_key_values`."""
    length = cache.get_seq_length() if hasattr(cache, "get_seq_length") else None
    if length is None:
        first = next(iter(_tensors(cache)), None)
        length = 0 if first is None or first.dim() < 2 else first.shape[-2]
    length = int(length)
    if context is not None and context != length:
        raise BadInput(f"context = {context}: past_key_values of the sample hold {length} tokens; leave context out")
    # The call changes the cache, so it gets a copy; deepcopy refuses tensors with a history of autograd.
    cache = copy.deepcopy(cache, {id(t): t.detach() for t in _tensors(cache)})
    return TracedPass(model, {**sample, "past_key_values": cache}, length, tuple(_tensors(cache)))


def _pass_with_new_cache(
    model: nn.Module, sample: Any, phase: str | None, context: int, encoder_decoder: bool
) -> TracedPass:
    """The pass with a cache that is made by running the model on `context` tokens."""
    if not takes(model, "past_key_values"):
        raise BadInput(
            f"context = {context}: {type(model).__name__} takes no past_key_values; leave context out, or give a model "
            "with a cache, such as a decoder of Hugging Face"
        )
    field = "decoder_input_ids" if encoder_decoder else "input_ids"
    tokens = sample.get(field) if isinstance(sample, Mapping) else None
    if not isinstance(tokens, Tensor) or tokens.dim() != 2:
        raise BadInput(f"sample has no {field} [B, M], so no cache can be made for it; give a mapping with {field}")
    (B, M), mask = tokens.shape, f"{'decoder_' if encoder_decoder else ''}attention_mask"
    arguments = {name: value for name, value in sample.items() if name not in ("position_ids", "cache_position")}
    before = dict(arguments)
    padding = before.pop(mask, None)
    step = {name: value for name, value in arguments.items() if name != mask}
    if isinstance(padding, Tensor) and padding.dim() == 2 and padding.shape[1] == context + M:
        before[mask], step[mask] = padding[:, :context], padding
    before[field] = torch.full((B, context), _ANY_TOKEN, dtype=torch.long, device=tokens.device)
    before["use_cache"] = True
    if takes(model, "logits_to_keep"):
        before["logits_to_keep"] = 1
    try:
        with torch.no_grad():
            output = model(**before)
    except Exception as error:
        why = (str(error).strip().splitlines() or [""])[0]
        line = f"context = {context}: the model fails on that many tokens ({type(error).__name__}: {why}); lower it"
        raise BadInput(line) from error
    cache = getattr(output, "past_key_values", None)
    if cache is None:
        name = type(model).__name__
        raise BadInput(f"context = {context}: {name} returns no cache; give past_key_values in the sample")
    if encoder_decoder:
        step = {name: value for name, value in step.items() if name.startswith("decoder_") or name == "attention_mask"}
        step["encoder_outputs"] = (output.encoder_last_hidden_state,)
    return TracedPass(model, {**step, "past_key_values": cache, "use_cache": True}, context, tuple(_tensors(cache)))


def _tensors(value: Any, depth: int = 6) -> Iterator[Tensor]:
    """The keys and values [B, H, N, d] that a cache holds."""
    if isinstance(value, Tensor):
        if value.dim() >= 3 and value.numel():
            yield value
        return
    if depth == 0 or isinstance(value, (str, int, float, type(None), type)):
        return
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else None
    for part in vars(value).values() if inner is None and hasattr(value, "__dict__") else inner or ():
        yield from _tensors(part, depth - 1)
