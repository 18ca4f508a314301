"""The workload of a real model: what a forward pass computes, as shapes; from the very capture that `convert` uses."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ohmformer.capture.dry_run import watch
from ohmformer.capture.inputs import batch_size
from ohmformer.capture.product import Seen
from ohmformer.capture.pytorch_quirks import without_fast_path
from ohmformer.capture.torch_private import experts_implementation, set_experts_implementation
from ohmformer.errors import BadInput, suggest
from ohmformer.hardware.rules import OrderedRules, RuleBook, Rules
from ohmformer.tracing.kv_cache_sample import TracedPass, new_tokens, prepare
from ohmformer.tracing.operations import LeftOut, PassInfo, Writer
from ohmformer.tracing.recorder import Event, Shapes, TraceRecorder
from ohmformer.tracing.stages import staged
from ohmformer.workload.spec import DynamicMatMul, Op, Phase, StaticMatMul, Workload


def trace(
    model: nn.Module,
    sample: Any,
    *,
    phase: Phase | None = None,
    context: int | None = None,
    rules: Rules | None = None,
) -> Workload:
    """The products of one forward pass of a real model, and the work between them, as shapes.

    No weights are needed: a model that was made on the meta device is traced in seconds, whatever its size. Its sample
    is moved there. Where values would decide, the meta device is told what is usual: no padding; masks that a model
    makes are causal if its attention says so (`is_causal`, `is_decoder`) or the phase does; tokens spread evenly over
    experts. With weights, routing and masks are those of the sample, and every token counts, padding too.

    Windows of an image count as samples of their own. Copies of heads that serve grouped queries count once. A product
    that `rules` keeps digital is an `Elementwise` operation of one element per multiplication, as are products that
    `convert` leaves digital by itself (samples compared with one another, weights computed from others).

    Args:
        model: any transformer of PyTorch; it is not changed.
        sample: a batch (a tensor, a tuple of arguments or a mapping). An encoder with decoder that gets no decoder
            input is given one token.
        phase: `encode`, `prefill` or `decode`; by default what the attention shows. `encode` of an encoder with
            decoder traces the encoder alone; `decode` makes one token.
        context: tokens in the cache before this pass. The cache is made by running the model (of Hugging Face) on
            so many tokens; or the sample has `past_key_values`, and this is left out.
        rules: as in `convert`: name pattern -> None (or another rule), for what is to stay digital.

    Raises:
        BadInput: a product is not understood, or the phase does not go with model and sample.
    """
    ruled = _check(model, sample, phase, context, rules or {})
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    if on_meta:
        sample = _on_meta(sample)
    with _evaluating(model), without_fast_path(), _grouped_experts(model, on_meta), Shapes():
        step = prepare(model, sample, phase, context)
        chosen = _phase(step, phase)
        events = _events(step)
    causal = chosen in ("prefill", "decode") or (chosen is None and _generates(model))
    tokens = new_tokens(step.sample)
    info = PassInfo(_samples(step.sample), step.context, causal, chosen == "decode", tokens)
    writer = Writer(step.model, ruled, info)
    drafts = writer.drafts(events)
    for line in writer.left_out:
        warnings.warn(line, LeftOut, stacklevel=2)
    sizes = {name: len(list(module.children())) for name, module in step.model.named_modules()}
    if not any(draft.role != "other" for draft in drafts):
        raise BadInput("the model multiplies nothing on the sample, so there is nothing to trace")
    ops = staged(drafts, sizes)
    # The number of tokens and the phase are facts of the model and its inputs, whatever rules keep digital.
    kept = any(draft.product is not None and type(draft.product) is not type(draft.op) for draft in drafts)
    products = staged([replace(draft, op=draft.product or draft.op) for draft in drafts], sizes) if kept else ops
    return _workload(model, ops, products, info, chosen, phase)


def _on_meta(sample: Any) -> Any:
    """The sample without values; what was one tensor stays one tensor."""
    moved: dict[int, Tensor] = {}

    def one(t: Tensor) -> Tensor:
        return moved.setdefault(id(t), t.to("meta"))

    return tree_map_only(Tensor, one, dict(sample) if isinstance(sample, Mapping) else sample)


def _check(model: Any, sample: Any, phase: Any, context: Any, rules: Any) -> OrderedRules:
    if not isinstance(model, nn.Module):
        raise BadInput(f"model is of type {type(model).__name__}; give an nn.Module")
    if hasattr(model, "ohmformer_crossbars"):
        raise BadInput("this model is on crossbars already; trace the original")
    if not isinstance(rules, Mapping):
        raise BadInput(f"rules is of type {type(rules).__name__}; give a mapping of name patterns")
    if phase is not None and phase not in get_args(Phase):
        raise BadInput(f"phase = {phase!r}: {suggest(str(phase), list(get_args(Phase)))}")
    if context is not None and (isinstance(context, bool) or not isinstance(context, int) or context < 0):
        raise BadInput(f"context = {context!r}: must be a whole number, 0 or more; correct it")
    if context and phase == "encode":
        raise BadInput(f"context = {context}: encoding has no cache; leave it out, or take prefill or decode")
    if batch_size(sample) == 0:
        raise BadInput("sample is empty; give a batch of at least one input")
    return RuleBook.read(rules).rules


def _phase(step: TracedPass, phase: Phase | None) -> Phase | None:
    """The phase, as far as it follows from the sample."""
    tokens = new_tokens(step.sample)
    if phase == "decode" and tokens is not None and tokens != 1:
        raise BadInput(
            f"phase = 'decode': the sample has {tokens} tokens for each sequence; give one, and the length of what "
            "comes before as context=N"
        )
    if phase is None and step.context:
        return "decode" if tokens == 1 else "prefill"
    return phase


def _events(step: TracedPass) -> list[Event]:
    found: list[TraceRecorder] = []

    def make(model: nn.Module, seen: Seen) -> TraceRecorder:
        found.append(TraceRecorder(model, seen, step.cache))
        return found[-1]

    watch(step.model, step.sample, make)
    found[-1].flush()
    return found[-1].events


def _samples(sample: Any) -> tuple[int, ...]:
    """How many samples there may be: along the first axis of the first input, or along the second."""
    return tuple(dict.fromkeys(n for n in (batch_size(sample, 0), batch_size(sample, 1)) if n))


def _generates(model: nn.Module) -> bool:
    """Whether a model says that it makes text from the left to the right."""
    config = getattr(model, "config", None)
    able = getattr(model, "can_generate", None)
    return bool(getattr(config, "is_decoder", False)) or bool(callable(able) and able())


def _workload(
    model: nn.Module,
    ops: tuple[Op, ...],
    products: tuple[Op, ...],
    info: PassInfo,
    chosen: Phase | None,
    phase: Phase | None,
) -> Workload:
    """The workload of operations; `products` are the same without what rules keep digital."""
    keys = [op for op in products if isinstance(op, DynamicMatMul) and op.role == "attention.key"]
    own = [op for op in keys if not op.across]
    causal = bool(own) and all(op.causal for op in own)
    mixed = any(op.across for op in keys) and any(op.causal for op in own)
    if phase == "encode" and causal:
        raise BadInput("phase = 'encode': the model has a causal mask; take prefill or decode")
    if phase in ("prefill", "decode") and keys and not any(op.causal for op in own):
        raise BadInput(f"phase = {phase!r}: the model has no causal mask, so it sees all tokens at once; take encode")
    many = max((op.queries for op in own), default=1)
    if phase == "decode" and many > 1:
        raise BadInput(
            f"phase = 'decode': the model computes {many} tokens of a sample at once; take encode or prefill, or give "
            "context if it has a cache"
        )
    final: Phase = chosen or ("prefill" if causal or mixed else "encode")
    queries = own[0].batch * own[0].queries if own else 0
    batch = next((n for n in info.samples if not own or own[0].batch % n == 0), 1)
    first = next((op.vectors for op in products if isinstance(op, StaticMatMul)), batch)
    tokens = max(1, (queries or first) // batch)
    config = getattr(model, "config", None)
    title = str(getattr(config, "_name_or_path", "") or type(model).__name__)
    return Workload(title, final, batch, tokens, info.context, causal, ops)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout, and without statistics of batches that a pass would change."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _grouped_experts(model: nn.Module, on_meta: bool) -> Iterator[None]:
    """On the meta device, experts of Hugging Face as one bank: a loop over those that are hit needs values."""
    loops = [module for module in model.modules() if on_meta and _loops(module)]
    for module in loops:
        set_experts_implementation(module, "grouped_mm")
    try:
        yield
    finally:
        for module in loops:
            set_experts_implementation(module, "eager")


def _loops(module: nn.Module) -> bool:
    """Whether a module computes one expert after another."""
    return experts_implementation(module) == "eager"
