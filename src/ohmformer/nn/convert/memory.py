"""Which tensors of a call are not its new tokens: what a decoder looks at, such as the output of an encoder.

Their rows are not numbered as the new tokens are, so their reads must not be either.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ohmformer.capture.dry_run import DryRun
from ohmformer.capture.product import Product
from ohmformer.nn.convert.call_info import bound_arguments, is_other_input
from ohmformer.nn.modules.compile_guard import eager
from ohmformer.nn.operands.state import CallInfo, State
from ohmformer.nn.operands.token_numbers import token_mask

MEMORY = "encoder_hidden_states"
"""The argument by which decoders of Hugging Face are given the tokens of an encoder [B, N, features]."""

ATTENTION = ("attention", "multihead attention")


def note_memory(state: State, tensors: Iterable[Tensor], padding: tuple[Tensor, ...]) -> None:
    """Remember that tensors [B, N, features] are not the new tokens of a call.

    Args:
        state: what the model shares.
        tensors: what the decoder looks at; tensors with another number of axes are left out.
        padding: which places [B, N] hold something; empty if all do.
    """
    for t in tensors:
        if t.dim() == 3 and (not padding or t.shape[:2] == padding[0].shape):
            state.memory[t] = padding


def encoder_of(model: nn.Module) -> nn.Module | None:
    """The encoder of a model of Hugging Face that has a decoder too, which `generate` calls by itself."""
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False) or not hasattr(model, "get_encoder"):
        return None
    try:
        found = model.get_encoder()  # type: ignore[operator]
    except Exception:  # a library's own affair
        return None
    return found if isinstance(found, nn.Module) and found is not model else None


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


def note_inputs(state: State, info: CallInfo, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Remember the inputs of a call that stand beside its tokens, such as the features of an image."""
    if info.numbers and not torch.is_grad_enabled():
        named = bound_arguments(model, args, kwargs)
        note_memory(state, [value for name, value in named.items() if is_other_input(name, value)], ())


def attach_to_decoders(model: nn.Module, state: State) -> None:
    """Each outermost decoder that takes the tokens of an encoder notes which they are."""
    outer: str | None = None
    for name, module in model.named_modules():
        try:
            names = list(inspect.signature(module.forward).parameters)
        except (TypeError, ValueError):  # what is not written in Python
            continue
        if MEMORY in names and (outer is None or not name.startswith(outer)):
            module.register_forward_pre_hook(partial(begin_decoder, state, names.index(MEMORY)), with_kwargs=True)
            outer = f"{name}." if name else ""


@eager
def begin_decoder(state: State, place: int, _decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A decoder begins. Not with gradients: layers that are recomputed for them must draw the same without it."""
    given = args[place] if place < len(args) else kwargs.get(MEMORY)
    if isinstance(given, Tensor) and given not in state.memory and not torch.is_grad_enabled():
        mask = token_mask(kwargs.get("encoder_attention_mask"))
        note_memory(state, [given], () if mask is None else (mask,))
