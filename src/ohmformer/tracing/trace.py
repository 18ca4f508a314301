"""`trace`: the workload of a real model, from the same dry run that `convert` uses."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ohmformer.capture.dry_run import record_pass
from ohmformer.capture.inputs import batch_size
from ohmformer.capture.product import PassRecord
from ohmformer.capture.pytorch_quirks import evaluation_mode, without_fast_path
from ohmformer.capture.torch_private import experts_implementation, set_experts_implementation, tree_map_only
from ohmformer.errors import BadInput, check_type, given, one_line, shown, suggest
from ohmformer.hardware.rules import OrderedRules, RuleBook, Rules
from ohmformer.routing.product_handler import layers_elsewhere
from ohmformer.routing.refusals import in_another_thread
from ohmformer.tracing.kv_cache_sample import TracedPass, new_tokens, prepare
from ohmformer.tracing.operations import LeftOut, OperationBuilder, PassInfo
from ohmformer.tracing.recorder import AssumedValues, Event, TraceRecorder
from ohmformer.tracing.stages import staged
from ohmformer.workload.spec import DynamicMatMul, Op, Phase, StaticMatMul, Workload

NO_CAUSAL_MASK = "the model has no causal mask"
"""Reason why a phase of generation is refused for an encoder."""


def trace(
    model: nn.Module,
    sample: Any,
    *,
    phase: Phase | None = None,
    context: int | None = None,
    rules: Rules | None = None,
) -> Workload:
    """Make the workload of one forward pass of a real model: its products, and the work between them, as shapes.

    A model on the meta device is traced without weights, in seconds, whatever its size; its sample is moved there.
    Where values would decide, the usual case is assumed: there is no padding, tokens spread evenly over experts, and a
    mask that the model makes is causal if its attention (`is_causal`, `is_decoder`) or the phase is. With weights,
    routing and masks are those of the sample, and every token counts, padding included.

    Each window of an image counts as a sample. Copies of heads for grouped queries count once. A digital product is an
    `Elementwise` operation with one element per multiplication: those that `rules` keep digital, and those that
    `convert` leaves digital without a rule (samples compared with one another, weights computed from others).

    Args:
        model: any transformer of PyTorch; it is not changed.
        sample: a batch (a tensor, a tuple of arguments or a mapping). The decoder of an encoder-decoder model gets one
            token if the sample has none for it.
        phase: `encode`, `prefill` or `decode`; by default it follows from the attention masks. `encode` traces only
            the encoder of an encoder-decoder model; `decode` makes one token.
        context: tokens in the KV cache before this pass; models of Hugging Face only. The cache is made by running the
            model on that many tokens. None if the sample has `past_key_values`.
        rules: as in `convert`: name pattern -> rule; None keeps what matches digital.

    Raises:
        BadInput: a product is not understood, or the phase does not fit the model and the sample.
    """
    ordered_rules = _check(model, sample, phase, context, {} if rules is None else rules)
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    if on_meta:
        sample = _on_meta(sample)
    with _evaluating(model), without_fast_path(), _grouped_experts(model, on_meta), AssumedValues():
        step = prepare(model, sample, phase, context)
        chosen = _infer_phase(step, phase)
        events, record = _events(step)
    causal = chosen in ("prefill", "decode") or (chosen is None and _generates(model))
    tokens = new_tokens(step.sample)
    info = PassInfo(_sample_counts(step.sample), step.cached_tokens, causal, chosen == "decode", tokens)
    builder = OperationBuilder(step.model, ordered_rules, info)
    elsewhere = layers_elsewhere(builder.weights_of.modules, record.elsewhere, builder.rules)
    if elsewhere:
        raise in_another_thread(elsewhere, "leave it out")
    drafts = builder.drafts(events)
    for line in [*builder.left_out, *_left_over(builder.left_over)]:
        warnings.warn(line, LeftOut, stacklevel=2)
    sizes = {name: len(list(module.children())) for name, module in step.model.named_modules()}
    if not any(draft.role != "other" for draft in drafts):
        raise BadInput("the model multiplies nothing on the sample, so there is nothing to trace")
    ops = staged(drafts, sizes)
    # The number of tokens and the phase are facts of the model and its inputs, whatever rules keep digital.
    digital_by_rule = any(draft.product is not None and type(draft.product) is not type(draft.op) for draft in drafts)
    products = (
        staged([replace(draft, op=draft.product or draft.op) for draft in drafts], sizes) if digital_by_rule else ops
    )
    return _workload(model, ops, products, info, chosen, phase)


def _left_over(products: list[tuple[str, str]]) -> list[str]:
    """One line for the products that stay digital without a rule, as `convert` has; none without such products."""
    if not products:
        return []
    module, reason = products[0]
    where = module or "the model itself"
    count = f"{len(products)} products stay" if len(products) > 1 else "1 product stays"
    return [f"{count} digital, the first in {where}: {reason}; the workload counts it as a digital operation"]


def _on_meta(sample: Any) -> Any:
    """The sample on the meta device; a tensor that occurs several times stays one tensor."""
    moved: dict[int, Tensor] = {}

    def move(t: Tensor) -> Tensor:
        return moved.setdefault(id(t), t.to("meta"))

    return tree_map_only(Tensor, move, dict(sample) if isinstance(sample, Mapping) else sample)


def _check(model: Any, sample: Any, phase: Any, context: Any, rules: Any) -> OrderedRules:
    """Refuse arguments of `trace` that are not valid, and read the rules."""
    check_type("trace", "model", model, nn.Module, "an nn.Module, or a name as text")
    if hasattr(model, "ohmformer_crossbars"):
        raise BadInput("this model is on crossbars already; trace the original")
    check_type("trace", "rules", rules, Mapping, "a mapping of name patterns")
    if phase is not None and (not isinstance(phase, str) or phase not in get_args(Phase)):
        raise BadInput(f"trace: phase = {one_line(phase)}: {suggest(shown(phase), list(get_args(Phase)))}")
    if context is not None and (isinstance(context, bool) or not isinstance(context, int) or context < 0):
        raise BadInput(f"context = {one_line(context)}: must be a whole number, 0 or more; correct it")
    if context and phase == "encode":
        raise BadInput(f"context = {context}: encoding has no cache; leave it out, or take prefill or decode")
    if isinstance(sample, (str, bytes, int, float, complex)):
        raise BadInput(f"trace: sample is {given(sample)}; give a batch of inputs, whose sizes are taken")
    if batch_size(sample) == 0:
        raise BadInput("sample is empty; give a batch of at least one input")
    return RuleBook.read(rules).rules


def _infer_phase(step: TracedPass, phase: Phase | None) -> Phase | None:
    """The phase that the user states, or that follows from the sample; None if only the masks can show it.

    Raises:
        BadInput: the phase is `decode`, but the sample has several tokens per sequence.
    """
    tokens = new_tokens(step.sample)
    if phase == "decode" and tokens is not None and tokens != 1:
        raise BadInput(
            f"phase = 'decode': the sample has {tokens} tokens for each sequence; give one, and the number of tokens "
            "before it as context=N"
        )
    if phase is None and step.cached_tokens:
        return "decode" if tokens == 1 else "prefill"
    return phase


def _events(step: TracedPass) -> tuple[list[Event], PassRecord]:
    """The events of one forward pass, and its record."""
    recorders: list[TraceRecorder] = []  # a pass that loads the compiler is repeated with a new recorder

    def make_recorder(model: nn.Module, record: PassRecord) -> TraceRecorder:
        recorders.append(TraceRecorder(model, record, step.cache))
        return recorders[-1]

    record = record_pass(step.model, step.sample, make_recorder)
    recorders[-1].flush()
    return recorders[-1].events, record


def _sample_counts(sample: Any) -> tuple[int, ...]:
    """The possible numbers of samples: the sizes of the first and the second axis of the first input."""
    return tuple(dict.fromkeys(n for n in (batch_size(sample, 0), batch_size(sample, 1)) if n))


def _generates(model: nn.Module) -> bool:
    """True if a model of Hugging Face generates text from left to right."""
    config = getattr(model, "config", None)
    can_generate = getattr(model, "can_generate", None)
    return bool(getattr(config, "is_decoder", False)) or bool(callable(can_generate) and can_generate())


def _workload(
    model: nn.Module,
    ops: tuple[Op, ...],
    products: tuple[Op, ...],
    info: PassInfo,
    chosen: Phase | None,
    phase: Phase | None,
) -> Workload:
    """The workload of a model.

    Args:
        model: the model.
        ops: its operations.
        products: the same operations as if no rule kept any digital; phase and number of tokens follow from these.
        info: facts about the pass.
        chosen: the phase as far as it is known.
        phase: the phase that the user states, which must fit the masks.
    """
    keys = [op for op in products if isinstance(op, DynamicMatMul) and op.role == "attention.key"]
    self_attention = [op for op in keys if not op.across]
    causal = bool(self_attention) and all(op.causal for op in self_attention)
    with_cross_attention = any(op.across for op in keys) and any(op.causal for op in self_attention)
    if phase == "encode" and causal:
        raise BadInput("phase = 'encode': the model has a causal mask; take prefill or decode")
    if phase in ("prefill", "decode") and keys and not any(op.causal for op in self_attention):
        raise BadInput(f"phase = {phase!r}: {NO_CAUSAL_MASK}, so it sees all tokens at once; take encode")
    count = max((op.queries for op in self_attention), default=1)
    if phase == "decode" and count > 1:
        raise BadInput(
            f"phase = 'decode': the model computes {count} tokens of a sample at once; take encode or prefill, or give "
            "context if it has a cache"
        )
    final_phase: Phase = chosen or ("prefill" if causal or with_cross_attention else "encode")
    queries = self_attention[0].batch * self_attention[0].queries if self_attention else 0
    batch = next((n for n in info.samples if not self_attention or self_attention[0].batch % n == 0), 1)
    first = next((op.vectors for op in products if isinstance(op, StaticMatMul)), batch)
    tokens = max(1, (queries or first) // batch)
    config = getattr(model, "config", None)
    title = str(getattr(config, "_name_or_path", "") or type(model).__name__)
    return Workload(title, final_phase, batch, tokens, info.cached_tokens, causal, ops)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Context in which a model is in eval mode and computes no gradients: without dropout and batch statistics."""
    with evaluation_mode(model), torch.no_grad():
        yield


@contextmanager
def _grouped_experts(model: nn.Module, on_meta: bool) -> Iterator[None]:
    """Context in which models of Hugging Face on the meta device compute their experts by one grouped product.

    Their default, a loop over the experts that tokens are routed to, needs values.
    """
    loops = [module for module in model.modules() if on_meta and _loops(module)]
    for module in loops:
        set_experts_implementation(module, "grouped_mm")
    try:
        yield
    finally:
        for module in loops:
            set_experts_implementation(module, "eager")


def _loops(module: nn.Module) -> bool:
    """True if a module computes its experts in a loop."""
    return experts_implementation(module) == "eager"
