"""A forward pass with a cache of keys and values: made from what the user says, for models of Hugging Face.

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

_START = 0
"""Any token does: only shapes count."""


@dataclass(frozen=True)
class TracedPass:
    """What is run: a model on a sample, with tensors of a cache of `context` tokens."""

    model: nn.Module
    sample: Any
    context: int
    cache: tuple[Tensor, ...]


def prepare(model: nn.Module, sample: Any, phase: str | None, context: int | None) -> TracedPass:
    """The sample with a cache, where one is asked for, and with a first token of the decoder, where one is needed.

    Raises:
        BadInput: the model has no cache, or the sample does not go with the phase.
    """
    mixed = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
    if mixed or takes(model, "past_key_values"):
        sample = _named(model, sample)
    if mixed and phase == "encode":
        encoder = model.get_encoder() if hasattr(model, "get_encoder") else model  # type: ignore[operator]
        return TracedPass(encoder, _without(sample, "decoder_"), 0, ())
    if mixed:
        sample = _with_first_token(model, sample)
    given = sample.get("past_key_values") if isinstance(sample, Mapping) else None
    if given is not None:
        return _given(model, sample, given, context)
    if not context:
        return TracedPass(model, sample, 0, ())
    return _filled(model, sample, phase, context, mixed)


def takes(model: nn.Module, name: str) -> bool:
    """Whether the model has an argument of that name."""
    return name in inspect.signature(model.forward).parameters


def new_tokens(sample: Any) -> int | None:
    """M; None where the sample names no tokens."""
    for name in ("decoder_input_ids", "decoder_inputs_embeds", "input_ids", "inputs_embeds"):
        value = sample.get(name) if isinstance(sample, Mapping) else None
        if isinstance(value, Tensor) and value.dim() >= 2:
            return int(value.shape[1])
    return None


def _named(model: nn.Module, sample: Any) -> Any:
    """The sample as a mapping of the model's own argument names."""
    if isinstance(sample, Mapping):
        return sample
    values = tuple(sample) if isinstance(sample, (tuple, list)) else (sample,)
    return dict(zip(inspect.signature(model.forward).parameters, values, strict=False))


def _without(sample: Any, prefix: str) -> Any:
    if not isinstance(sample, Mapping):
        return sample
    return {name: value for name, value in sample.items() if not name.startswith(prefix)}


def _with_first_token(model: nn.Module, sample: Any) -> Any:
    if not takes(model, "decoder_input_ids"):
        return sample
    named = isinstance(sample, Mapping) and not any(
        sample.get(name) is not None for name in ("decoder_input_ids", "decoder_inputs_embeds", "labels")
    )
    first = next((value for value in sample.values() if isinstance(value, Tensor)), None) if named else None
    if first is None:
        return sample
    start = torch.full((first.shape[0], 1), _START, dtype=torch.long, device=first.device)
    return {**sample, "decoder_input_ids": start}


def _given(model: nn.Module, sample: Mapping[str, Any], cache: Any, context: int | None) -> TracedPass:
    held = cache.get_seq_length() if hasattr(cache, "get_seq_length") else None
    if held is None:
        first = next(iter(_tensors(cache)), None)
        held = 0 if first is None or first.dim() < 2 else first.shape[-2]
    held = int(held)
    if context is not None and context != held:
        raise BadInput(f"context = {context}: past_key_values of the sample hold {held} tokens; leave context out")
    # Autograd's history cannot be copied, and the cache is copied before calls fill it.
    cache = copy.deepcopy(cache, {id(t): t.detach() for t in _tensors(cache)})
    return TracedPass(model, {**sample, "past_key_values": cache}, held, tuple(_tensors(cache)))


def _filled(model: nn.Module, sample: Any, phase: str | None, context: int, mixed: bool) -> TracedPass:
    """A cache made by running the model on `context` tokens."""
    if not takes(model, "past_key_values"):
        raise BadInput(
            f"context = {context}: {type(model).__name__} takes no past_key_values; leave context out, or give a model "
            "with a cache, such as a decoder of Hugging Face"
        )
    field = "decoder_input_ids" if mixed else "input_ids"
    tokens = sample.get(field) if isinstance(sample, Mapping) else None
    if not isinstance(tokens, Tensor) or tokens.dim() != 2:
        raise BadInput(f"sample has no {field} [B, M], so no cache can be made for it; give a mapping with {field}")
    (B, M), mask = tokens.shape, f"{'decoder_' if mixed else ''}attention_mask"
    given = {name: value for name, value in sample.items() if name not in ("position_ids", "cache_position")}
    before = dict(given)
    padding = before.pop(mask, None)
    step = {name: value for name, value in given.items() if name != mask}
    if isinstance(padding, Tensor) and padding.dim() == 2 and padding.shape[1] == context + M:
        before[mask], step[mask] = padding[:, :context], padding
    before[field] = torch.full((B, context), _START, dtype=torch.long, device=tokens.device)
    before["use_cache"] = True
    if takes(model, "logits_to_keep"):
        before["logits_to_keep"] = 1
    try:
        with torch.no_grad():
            output = model(**before)
    except Exception as error:
        why = (str(error).strip().splitlines() or [""])[0]
        line = f"context = {context}: the model fails on so many tokens ({type(error).__name__}: {why}); lower it"
        raise BadInput(line) from error
    cache = getattr(output, "past_key_values", None)
    if cache is None:
        name = type(model).__name__
        raise BadInput(f"context = {context}: {name} returns no cache; give past_key_values in the sample")
    if mixed:
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
    for each in vars(value).values() if inner is None and hasattr(value, "__dict__") else inner or ():
        yield from _tensors(each, depth - 1)
