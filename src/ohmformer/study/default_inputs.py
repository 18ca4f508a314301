"""Traces the real model of a study, so that its cost is that of the model whose accuracy is measured.

The model is traced with samples of the task; without a task, with random pixels or tokens of the shape that it takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ohmformer.capture.inputs import size, take
from ohmformer.capture.torch_private import tree_map_only
from ohmformer.errors import BadInput, shown
from ohmformer.hardware.rules import OrderedRules
from ohmformer.models.bundled_vit import VisionTransformer
from ohmformer.models.load import make_model
from ohmformer.models.preprocessing import preparation
from ohmformer.models.spec import ModelChoice
from ohmformer.study.loaded import all_rules, loaded, one_thread
from ohmformer.study.spec import CostModel
from ohmformer.tasks.spec import TaskChoice
from ohmformer.tracing.kv_cache_sample import takes
from ohmformer.tracing.trace import NO_CAUSAL_MASK, trace
from ohmformer.workload.request import ListedSteps, RequestPasses, line
from ohmformer.workload.spec import Op, Workload

FIELD_PREFIXES = ("phase", "context")
"""Beginnings of messages of `trace` that are about a field of the study."""

MOST_TOKENS = 1_000_000
"""Maximum number of tokens with which a model is traced, over all samples, those in a cache included."""

TRACED_STEPS = (0, 1, -1)
"""Indices of the decoding steps that are traced; sizes grow by the same amount from each step to the next."""


@lru_cache(maxsize=256)
def traced(model_spec: CostModel, context: int, task: TaskChoice | None, rules: OrderedRules) -> Workload:
    """The workload of the model that a study names, with `context` tokens in its cache.

    Raises:
        BadInput: model or data cannot be loaded, or the model has no such phase or length.
    """
    _check_size(model_spec, context)
    with one_thread():
        model, sample = _model_and_sample(model_spec, task)
        sample, sized = _sized(model_spec, context, model, sample)
        if takes(model, "logits_to_keep") and (model_spec.phase or not task):
            sample = {**sample, "logits_to_keep": 1}  # of what is generated, only the last token's words are needed
        options: dict[str, Any] = {"phase": model_spec.phase, "rules": all_rules(rules, task)}
        try:
            workload = trace(model, sample, context=context or None, **options)
        except BadInput as error:
            raise BadInput(_placed(model_spec, str(error))) from error
    if model_spec.seq_len not in (None, workload.tokens) and not sized:
        raise BadInput(
            f"model.seq_len = {model_spec.seq_len}: the model makes {workload.tokens} tokens of one input; leave it out"
        )
    return workload


def _check_size(model_spec: CostModel, context: int) -> None:
    """Refuse passes that need too much memory, since a model is run once to be traced.

    Raises:
        BadInput: more tokens than `MOST_TOKENS`.
    """
    weightless = model_spec.weights == "random" and model_spec.source.startswith(
        "hf:"
    )  # so its cache takes no memory either
    count = model_spec.batch * ((model_spec.seq_len or 1) + (0 if weightless else context))
    if count > MOST_TOKENS:
        raise BadInput(
            f"model.batch = {model_spec.batch}: makes {count:,} tokens with seq_len and context, and a real model is "
            f"traced with at most {MOST_TOKENS:,}; lower one of them, or take a table of dimensions (shapes:NAME)"
        )


def traced_steps(model_spec: CostModel, task: TaskChoice | None, rules: OrderedRules) -> list[Workload]:
    """The workloads of all steps. Of many steps, three are traced and the others are extrapolated if these agree.

    Raises:
        BadInput: as `traced`.
    """
    contexts = range(model_spec.context, model_spec.context + model_spec.steps)
    if len(contexts) > len(TRACED_STEPS):
        first, second, last = (traced(model_spec, contexts[index], task, rules) for index in TRACED_STEPS)
        workloads = [_extrapolated(first, second, index) for index in range(model_spec.steps)]
        if workloads[-1] == last:
            return workloads
    return [traced(model_spec, context, task, rules) for context in contexts]


def traced_passes(model_spec: CostModel, task: TaskChoice | None, rules: OrderedRules, generate: int) -> RequestPasses:
    """The passes of a request to a real model; `seq_len` is the prompt, or the source of an encoder-decoder.

    Of many steps, three are traced; all others have the sizes on the line through them, if they lie on one.

    Raises:
        BadInput: the model is an encoder, or as `traced`.
    """
    spec = model_spec.model_copy(update={"phase": "prefill", "generate": None})
    try:
        prefill = traced(spec, 0, task, rules)
    except BadInput as error:
        if NO_CAUSAL_MASK not in str(error):
            raise
        raise BadInput(
            f"model.source = {shown(model_spec.source)}: {NO_CAUSAL_MASK}, so it is an encoder, which generates no "
            "tokens; take `ohmformer cost`, or a decoder"
        ) from None
    alone = prefill if spec.batch == 1 else traced(spec.model_copy(update={"batch": 1}), 0, task, rules)
    if generate == 1:
        return RequestPasses(prefill, None, alone, prefill.tokens)
    across = any(op.across for op in prefill.dynamic)
    start = 1 if across else prefill.tokens
    update: dict[str, Any] = {"phase": "decode", "context": start, "steps": generate - 1}
    if not across:
        update["seq_len"] = None
    step_spec = spec.model_copy(update=update)
    if generate > len(TRACED_STEPS):
        contexts = range(start, start + generate - 1)
        first, second, last = (traced(step_spec, contexts[index], task, rules) for index in TRACED_STEPS)
        if steps := line(first, second, last, generate - 1):
            return RequestPasses(prefill, steps, alone, prefill.tokens)
    listed = tuple(traced_steps(step_spec, task, rules))
    return RequestPasses(prefill, ListedSteps(listed), alone, prefill.tokens)


def _extrapolated(first: Workload, second: Workload, steps: int) -> Workload:
    """The workload `steps` steps after `first`, if every step changes it as the step to `second` does."""
    pairs = zip(first.ops, second.ops, strict=False)
    ops = tuple(replace(one, **_changed(one, other, steps)) for one, other in pairs)
    return replace(first, context=first.context + steps, ops=ops)


def _changed(one: Op, other: Op, steps: int) -> dict[str, Any]:
    """Sizes of an operation that differ from those of `one` after `steps` steps."""
    sizes = {name: value for name, value in vars(one).items() if type(value) is int}
    changes = {name: getattr(other, name, value) - value for name, value in sizes.items()}
    return {name: sizes[name] + steps * change for name, change in changes.items() if change}


def _placed(model_spec: CostModel, message: str) -> str:
    """A message of `trace`, preceded by the path of the field that it is about."""
    if message.startswith("rules["):
        return message
    return f"model.{message}" if message.startswith(FIELD_PREFIXES) else f"{model_spec.where}: {message}"


def _model_and_sample(model_spec: CostModel, task: TaskChoice | None) -> tuple[nn.Module, Any]:
    fields = (name for name in ModelChoice.model_fields if name != "provenance")
    choice = ModelChoice(**{name: getattr(model_spec, name) for name in fields})
    if task is not None:
        model, data = loaded(choice, task)
        return model, _rows(data.calibration, model_spec.batch)
    model = _alone(choice)
    return model, _default(model_spec, model)


@lru_cache(maxsize=4)
def _alone(choice: ModelChoice) -> nn.Module:
    """A model without a task; one of Hugging Face with random weights gets no memory for them."""
    if choice.weights == "random" and choice.source.startswith("hf:"):
        with torch.device("meta"):
            return make_model(choice)
    return make_model(choice)


def _rows(inputs: Any, count: int) -> Any:
    """The first `count` samples; if there are fewer, they repeat."""
    available = min(count, size(inputs))
    order = torch.arange(count) % available
    return tree_map_only(Tensor, lambda t: t[order] if t.dim() else t, take(inputs, slice(0, available)))


def _default(model_spec: CostModel, model: nn.Module) -> Any:
    """Random pixels or tokens of the shape that a model takes."""
    draw = torch.Generator().manual_seed(0)
    if pixels := _pixels(model):
        return torch.randn(model_spec.batch, *pixels, generator=draw)
    config = getattr(model, "config", None)
    if takes(model, "input_features") and (sound := _sound(config)):
        return {"input_features": torch.randn(model_spec.batch, *sound, generator=draw)}
    if takes(model, "input_ids") and takes(model, "pixel_values") and (both := _text_and_image(config)):
        ids = torch.randint(both[0], (model_spec.batch, model_spec.seq_len or both[1]), generator=draw)
        return {"input_ids": ids, "pixel_values": torch.randn(model_spec.batch, *both[2:], generator=draw)}
    words = getattr(config, "vocab_size", None)
    if not isinstance(words, int) or not takes(model, "input_ids"):
        raise BadInput(
            f"{model_spec.where}: does not state the shape of its inputs; add a [task], whose samples are used"
        )
    length = model_spec.seq_len or (1 if model_spec.phase == "decode" and not _mixed(model) else None)
    if length is None:
        raise BadInput("model.seq_len: is missing; say how many tokens a sample has")
    return {"input_ids": torch.randint(words, (model_spec.batch, length), generator=draw)}


def _sound(config: Any) -> tuple[int, int] | None:
    """Mel bands and frames of the sound that a model takes (Whisper halves the frames); None if it does not say."""
    bands, tokens = getattr(config, "num_mel_bins", None), getattr(config, "max_source_positions", None)
    return (bands, 2 * tokens) if isinstance(bands, int) and isinstance(tokens, int) else None


def _text_and_image(config: Any) -> tuple[int, int, int, int, int] | None:
    """Words, longest text, channels, height and width that a model of both takes (CLIP); None if it does not say."""
    text, image = getattr(config, "text_config", None), getattr(config, "vision_config", None)
    sizes = [getattr(text, name, None) for name in ("vocab_size", "max_position_embeddings")]
    edge = getattr(image, "image_size", None)
    sizes += [getattr(image, "num_channels", None), edge, edge]
    given = [size for size in sizes if isinstance(size, int)]
    return (given[0], given[1], given[2], given[3], given[4]) if len(given) == len(sizes) else None


def _pixels(model: nn.Module) -> tuple[int, int, int] | None:
    """Channels, height and width of the images that a model takes; None if it takes none, or does not say."""
    if isinstance(model, VisionTransformer):
        side = math.isqrt(model.pos_embed.shape[1] - 1) * model.patch_embed.kernel_size[0]
        return model.patch_embed.in_channels, side, side
    if (images := preparation(model).images) is not None:
        return images.shape
    config = getattr(model, "config", None)
    edge, channels = getattr(config, "image_size", None), getattr(config, "num_channels", None)
    if edge is None or channels is None:
        return None
    height, width = (edge, edge) if isinstance(edge, int) else edge
    return channels, height, width


def _sized(model_spec: CostModel, context: int, model: nn.Module, sample: Any) -> tuple[Any, bool]:
    """The sample with the number of tokens in the study, and True if the sample consists of tokens.

    Raises:
        BadInput: more tokens than the model has positions for.
    """
    if isinstance(sample, Tensor) and sample.dim() == 2 and not sample.is_floating_point():
        sample = {"input_ids": sample}
    ids = sample.get("input_ids") if isinstance(sample, Mapping) else None
    if not isinstance(ids, Tensor) or ids.dim() != 2:
        return sample, False
    step = model_spec.phase == "decode" and not _mixed(model)
    if step and model_spec.seq_len not in (None, 1):
        raise BadInput(
            f"model.seq_len = {model_spec.seq_len}: decoding makes one token at a time; leave it out, and say with "
            "model.context how many are in the cache"
        )
    length = 1 if step else model_spec.seq_len or ids.shape[1]
    most = preparation(model).max_tokens
    if most is not None and length + (0 if _mixed(model) else context) > most:
        raise BadInput(
            f"{model_spec.where}: {length + context} tokens: its positions end at {most}; "
            "lower model.seq_len or context"
        )
    if length == ids.shape[1]:
        return sample, True
    order = torch.arange(length) % ids.shape[1]
    kept = {name: value for name, value in sample.items() if name not in ("attention_mask", "position_ids")}
    return {name: _cut(value, ids.shape, order) for name, value in kept.items()}, True


def _cut(value: Any, shape: torch.Size, order: Tensor) -> Any:
    """An input with one entry per token, at other tokens; other inputs are returned unchanged."""
    fits = isinstance(value, Tensor) and value.shape[:2] == shape[:2]
    return value[:, order] if fits else value


def _mixed(model: nn.Module) -> bool:
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
