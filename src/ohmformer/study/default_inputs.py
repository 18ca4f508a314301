"""The work of a real model in a study: traced, so that cost speaks of the model whose accuracy is measured.

With a task the model sees its samples; without one, random pixels or tokens of the shape that it takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ohmformer.capture.inputs import size, take
from ohmformer.errors import BadInput
from ohmformer.hardware.rules import OrderedRules
from ohmformer.models.bundled_vit import VisionTransformer
from ohmformer.models.load import make_model
from ohmformer.models.preprocessing import preparation
from ohmformer.models.spec import ModelChoice
from ohmformer.study.loaded import all_rules, loaded, one_thread
from ohmformer.study.spec import CostModel
from ohmformer.tasks.spec import TaskChoice
from ohmformer.tracing.kv_cache_sample import takes
from ohmformer.tracing.trace import trace
from ohmformer.workload.spec import Op, Workload

OURS = ("phase", "context")
"""What messages of `trace` begin with where a field of the study is meant."""

MOST_TOKENS = 1_000_000
"""Tokens of all samples, those in a cache included, that a model is traced with."""

TRACED_STEPS = (0, 1, -1)
"""Of many steps of decoding; what grows in a cache grows by as much at each."""


@lru_cache(maxsize=256)
def traced(asked: CostModel, context: int, task: TaskChoice | None, rules: OrderedRules) -> Workload:
    """The workload of the model that a study names, with `context` tokens in its cache.

    Raises:
        BadInput: model or data cannot be had, or the model has no such phase or length.
    """
    _check_size(asked, context)
    with one_thread():
        model, sample = _model_and_sample(asked, task)
        sample, sized = _sized(asked, context, model, sample)
        if takes(model, "logits_to_keep") and (asked.phase or not task):
            sample = {**sample, "logits_to_keep": 1}  # of what is generated, only the last token's words are needed
        options: dict[str, Any] = {"phase": asked.phase, "rules": all_rules(rules, task)}
        try:
            found = trace(model, sample, context=context or None, **options)
        except BadInput as error:
            raise BadInput(_placed(asked, str(error))) from error
    if asked.seq_len not in (None, found.tokens) and not sized:
        raise BadInput(
            f"model.seq_len = {asked.seq_len}: the model makes {found.tokens} tokens of one input; leave it out"
        )
    return found


def _check_size(asked: CostModel, context: int) -> None:
    """Refuse what no memory holds: a model is run once to be traced.

    Raises:
        BadInput: more tokens than `MOST_TOKENS`.
    """
    weightless = asked.weights == "random" and asked.source.startswith("hf:")  # so its cache takes no memory either
    count = asked.batch * ((asked.seq_len or 1) + (0 if weightless else context))
    if count > MOST_TOKENS:
        raise BadInput(
            f"model.batch = {asked.batch}: makes {count:,} tokens with seq_len and context, and a real model is traced "
            f"with at most {MOST_TOKENS:,}; lower one of them, or take a table of dimensions (shapes:NAME)"
        )


def traced_steps(asked: CostModel, task: TaskChoice | None, rules: OrderedRules) -> list[Workload]:
    """The workloads of all steps: of many, three are traced and the others lie on the line through them.

    Raises:
        BadInput: as `traced`.
    """
    contexts = range(asked.context, asked.context + asked.steps)
    if len(contexts) > len(TRACED_STEPS):
        first, second, last = (traced(asked, contexts[index], task, rules) for index in TRACED_STEPS)
        found = [_along(first, second, index) for index in range(asked.steps)]
        if found[-1] == last:
            return found
    return [traced(asked, context, task, rules) for context in contexts]


def _along(first: Workload, second: Workload, steps: int) -> Workload:
    """What `first` becomes if every step changes it as the one to `second` does."""
    pairs = zip(first.ops, second.ops, strict=False)
    ops = tuple(replace(one, **_changed(one, other, steps)) for one, other in pairs)
    return replace(first, context=first.context + steps, ops=ops)


def _changed(one: Op, other: Op, steps: int) -> dict[str, Any]:
    """Sizes of an operation that differ from those of `one` after `steps` steps."""
    sizes = {name: value for name, value in vars(one).items() if type(value) is int}
    changes = {name: getattr(other, name, value) - value for name, value in sizes.items()}
    return {name: sizes[name] + steps * change for name, change in changes.items() if change}


def _placed(asked: CostModel, said: str) -> str:
    """A message of `trace` with the path of the field that it is about."""
    if said.startswith("rules["):
        return said
    return f"model.{said}" if said.startswith(OURS) else f"{asked.where}: {said}"


def _model_and_sample(asked: CostModel, task: TaskChoice | None) -> tuple[nn.Module, Any]:
    fields = (name for name in ModelChoice.model_fields if name != "provenance")
    choice = ModelChoice(**{name: getattr(asked, name) for name in fields})
    if task is not None:
        model, data = loaded(choice, task)
        return model, _rows(data.calibration, asked.batch)
    model = _alone(choice)
    return model, _default(asked, model)


@lru_cache(maxsize=4)
def _alone(choice: ModelChoice) -> nn.Module:
    """A model without a task; random weights of Hugging Face are left away, whatever their size."""
    if choice.weights == "random" and choice.source.startswith("hf:"):
        with torch.device("meta"):
            return make_model(choice)
    return make_model(choice)


def _rows(inputs: Any, count: int) -> Any:
    """`count` samples; where there are fewer, they repeat from the first one on."""
    there = min(count, size(inputs))
    order = torch.arange(count) % there
    return tree_map_only(Tensor, lambda t: t[order] if t.dim() else t, take(inputs, slice(0, there)))


def _default(asked: CostModel, model: nn.Module) -> Any:
    """Pixels or tokens of the shape that a model takes."""
    draw = torch.Generator().manual_seed(0)
    if pixels := _pixels(model):
        return torch.randn(asked.batch, *pixels, generator=draw)
    config = getattr(model, "config", None)
    if takes(model, "input_features") and (sound := _sound(config)):
        return {"input_features": torch.randn(asked.batch, *sound, generator=draw)}
    if takes(model, "input_ids") and takes(model, "pixel_values") and (both := _text_and_image(config)):
        ids = torch.randint(both[0], (asked.batch, asked.seq_len or both[1]), generator=draw)
        return {"input_ids": ids, "pixel_values": torch.randn(asked.batch, *both[2:], generator=draw)}
    words = getattr(config, "vocab_size", None)
    if not isinstance(words, int) or not takes(model, "input_ids"):
        raise BadInput(f"{asked.where}: does not say what it takes; add a [task], whose samples are taken")
    length = asked.seq_len or (1 if asked.phase == "decode" and not _mixed(model) else None)
    if length is None:
        raise BadInput("model.seq_len: is missing; say how many tokens a sample has")
    return {"input_ids": torch.randint(words, (asked.batch, length), generator=draw)}


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
    known = [size for size in sizes if isinstance(size, int)]
    return (known[0], known[1], known[2], known[3], known[4]) if len(known) == len(sizes) else None


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


def _sized(asked: CostModel, context: int, model: nn.Module, sample: Any) -> tuple[Any, bool]:
    """The sample with as many tokens as the study says, and whether it is one of tokens at all.

    Raises:
        BadInput: more tokens than the model has positions for.
    """
    if isinstance(sample, Tensor) and sample.dim() == 2 and not sample.is_floating_point():
        sample = {"input_ids": sample}
    ids = sample.get("input_ids") if isinstance(sample, Mapping) else None
    if not isinstance(ids, Tensor) or ids.dim() != 2:
        return sample, False
    step = asked.phase == "decode" and not _mixed(model)
    if step and asked.seq_len not in (None, 1):
        raise BadInput(
            f"model.seq_len = {asked.seq_len}: decoding makes one token at a time; leave it out, and say with "
            "model.context how many are in the cache"
        )
    length = 1 if step else asked.seq_len or ids.shape[1]
    most = preparation(model).max_tokens
    if most is not None and length + (0 if _mixed(model) else context) > most:
        raise BadInput(
            f"{asked.where}: {length + context} tokens: its positions end at {most}; lower model.seq_len or context"
        )
    if length == ids.shape[1]:
        return sample, True
    order = torch.arange(length) % ids.shape[1]
    kept = {name: value for name, value in sample.items() if name not in ("attention_mask", "position_ids")}
    return {name: _cut(value, ids.shape, order) for name, value in kept.items()}, True


def _cut(value: Any, shape: torch.Size, order: Tensor) -> Any:
    """What there is for each token, for other tokens."""
    fits = isinstance(value, Tensor) and value.shape[:2] == shape[:2]
    return value[:, order] if fits else value


def _mixed(model: nn.Module) -> bool:
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
