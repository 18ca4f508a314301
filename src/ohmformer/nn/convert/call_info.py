"""What the arguments of a model say of its batch: its samples, its tokens and its padding.

Names of arguments are those of Hugging Face; models with other names are run without what they would say.
Shapes: B samples, M new tokens, N tokens in all.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ohmformer.capture.dry_run import DryRun
from ohmformer.capture.opaque_tensors import shape_of
from ohmformer.capture.product import Product
from ohmformer.nn.operands.state import CallInfo
from ohmformer.nn.operands.token_numbers import numbered, token_mask
from ohmformer.streams import current_samples

OTHER_INPUTS = ("pixel_values", "pixel_values_videos", "input_features", "input_values", "flattened_patches")
"""Arguments of Hugging Face that hold images or sound."""
WORDS = ("input_ids", "inputs_embeds", "decoder_input_ids")
ATTENTION = ("attention", "multihead attention")


def call_info(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], axis: int) -> CallInfo:
    """What a call of a model says; `axis` is that of samples in its inputs."""
    named = named_arguments(model, args, kwargs)
    mixed, alone = False, True  # with inputs for a decoder; without continuous inputs, such as images
    for name, value in named.items():
        mixed = mixed or (name.startswith("decoder_") and value is not None)
        alone = alone and not is_other_input(name, value)
    prefix = "decoder_" if mixed else ""
    tokens = _tokens(named, prefix)
    rows = _rows([args, dict(kwargs)] if tokens is None else tokens, axis)
    said = named.get(f"{prefix}attention_mask")
    mask = token_mask(said)
    padding: tuple[Tensor, ...] = (mask,) if mask is not None and alone else ()
    other = token_mask(named.get("attention_mask")) if alone else None
    memory = None if not mixed else () if other is None else (other,)
    cache, position = named.get("past_key_values"), named.get("cache_position")
    cached = cache is not None or named.get("use_cache") is True
    M = tokens.shape[1] if tokens is not None else position.shape[-1] if isinstance(position, Tensor) else None
    if M is None or rows is None or axis != 0 or (tokens is not None and tokens.shape[0] != rows):
        return CallInfo(current_samples(), rows, padding=padding, memory=memory, cached=cached)
    own_cache = cache is None and not _takes_cache(model)
    new = numbered(named, said, rows, M, own_cache=own_cache)
    return CallInfo(
        current_samples(),
        rows,
        new.numbers,
        () if mixed and mask is not None else new.totals,
        new.padding if alone or mask is None else (),
        memory,
        cached,
        ring=own_cache and isinstance(position, Tensor),
    )


def encoder_call_info(
    encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], axis: int, around: CallInfo
) -> CallInfo:
    """What a call of an encoder says, by itself or inside of a call of the model; its tokens do not come one by one."""
    found = call_info(encoder, args, kwargs, axis)
    names = found.names if around.rows != found.rows or around.names is None else around.names
    return CallInfo(names, found.rows, padding=found.padding, at_once=True)


def drop_parts_of_texts(run: DryRun, model: nn.Module, sample: Any) -> None:
    """Only where the keys are those of a whole text do tokens come one by one; elsewhere attention is not causal.

    Queries of a window, which is folded among samples or heads, are fewer than the tokens of the sample; where nothing
    names those, they have more keys than queries, though there is no cache. What is the same for all samples, such as
    codes of distances, is no text.
    """
    named = dict(sample) if isinstance(sample, Mapping) else {}
    args = () if named else tuple(sample) if isinstance(sample, (tuple, list)) else (sample,)
    said = call_info(model, args, named, run.axis)
    for product in run.seen.products:
        if product.causal and product.left is not None and product.right is not None:
            M = product.left.shape[-2]
            N = product.left.shape[-1] if product.role == "value" else product.right.shape[-2]
            whole = len(said.numbers[0]) <= M if said.numbers else N == M or said.cached
            product.causal = whole and (product.role != "key" or run.places[product].right is not None)


def encoder_of(model: nn.Module) -> nn.Module | None:
    """The encoder of a model of Hugging Face that has a decoder too, which `generate` calls by itself."""
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False) or not hasattr(model, "get_encoder"):
        return None
    try:
        found = model.get_encoder()  # type: ignore[operator]
    except Exception:  # a library's own affair
        return None
    return found if isinstance(found, nn.Module) and found is not model else None


def encoders_of(model: nn.Module) -> list[nn.Module]:
    """Parts of a model with inputs of their own that come all at once: its encoder, and its towers for images or sound.

    A tower is an outermost part that takes such an input and no words.
    """
    encoder = encoder_of(model)
    found = [] if encoder is None else [encoder]
    inside = {id(module) for part in found for module in part.modules()}
    for module in model.modules():
        if module is model or id(module) in inside:
            continue
        try:
            names = inspect.signature(module.forward).parameters.keys()
        except (TypeError, ValueError):  # what is not written in Python
            continue
        if not names.isdisjoint(OTHER_INPUTS) and names.isdisjoint(WORDS):
            found.append(module)
            inside |= {id(part) for part in module.modules()}
    return found


def note_across(run: DryRun, model: nn.Module, sample: Any) -> None:
    """Note which products of queries with keys look at other tokens, where queries come one by one."""
    one_by_one = any(p.causal for p in run.seen.products) or only_looks_elsewhere(run, sample)
    encoder = encoder_of(model)
    inside = next((f"{name}." for name, module in model.named_modules() if module is encoder), None)
    for p in run.seen.products if one_by_one else ():
        if (p.kind in ATTENTION or p.role == "key") and not p.causal:
            in_decoder = inside is not None and not f"{p.module}.".startswith(inside)
            p.across = in_decoder or (inside is None and _elsewhere(p))


def only_looks_elsewhere(run: DryRun, sample: Any) -> bool:
    """True if keys are never those of the queries' own tokens, so that no query depends on how many others there are.

    Queries and keys then come from different inputs, and differ on the sample in number or in value.
    """
    inputs = [leaf for leaf in tree_leaves(dict(sample) if isinstance(sample, Mapping) else sample)
              if isinstance(leaf, Tensor) and leaf.dim() > 1]  # fmt: skip
    found = [_elsewhere(p) for p in run.seen.products if p.kind in ATTENTION or p.role == "key"]
    return len(inputs) > 1 and bool(found) and all(found)


def _elsewhere(product: Product) -> bool:
    """True if a product of queries with keys shows that these are other tokens."""
    left, right = product.left, product.right
    if left is None or right is None or len(left.shape) != len(right.shape):
        return False
    if left.shape[-2] != right.shape[-2]:
        return True
    same = left.values.shape == right.values.shape and torch.equal(left.values, right.values)
    return product.kind == "multihead attention" and not same


def named_arguments(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
    """The arguments of a call by the names that the model's forward has for them."""
    if not args:
        return kwargs
    try:
        return inspect.signature(model.forward).bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return kwargs


def _takes_cache(model: nn.Module) -> bool:
    """True if the model has an argument for its cache, so that it has none where a call gives none."""
    return "past_key_values" in inspect.signature(model.forward).parameters


def _rows(arguments: Any, axis: int) -> int | None:
    for leaf in tree_leaves(arguments):
        if isinstance(leaf, Tensor) and len(shape_of(leaf)) > axis:
            return int(leaf.shape[axis])
    return None


def _tokens(named: Mapping[str, Any], prefix: str) -> Tensor | None:
    for name in (f"{prefix}input_ids", f"{prefix}inputs_embeds"):
        value = named.get(name)
        if isinstance(value, Tensor) and value.dim() >= 2:
            return value
    return None


def is_other_input(name: str, value: Any) -> bool:
    """True if an input is not token data, such as images: masks of tokens do not speak of it."""
    tokens = name.endswith(("inputs_embeds", "mask"))
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 2 and not tokens
