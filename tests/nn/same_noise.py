"""How far the result of a text on noisy cells depends on what else is in the call: padding, other texts, a cache.

The noise of a token is that of its number in its text, so nothing but rounding may differ. Each comparison is also made
on the digital model: where that gives another result itself (a model that numbers padding, say), nothing is compared.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

import ohmformer as of
from ohmformer.capture.inputs import batch_size, call
from ohmformer.nn.calls.outputs import float_tensors
from ohmformer.nn.convert.handle import crossbars

HARDWARE = of.replace(of.load("clipformer_tcad_2024"), "attention.array.cell.write_noise.gamma", 3.0)
LARGEST = 1e-5
"""Of the norm of the result: more is no rounding."""
PADDING = 5
Run = Callable[..., Any]


@contextmanager
def texts(model: nn.Module, names: list[str]) -> Iterator[None]:
    """Rows are samples of these names; nothing is rounded, so that no tie tells sums in another order apart."""
    with torch.no_grad(), of.samples(names):
        if hasattr(model, "ohmformer_crossbars"):
            with of.without_quantizers(model):
                yield
        else:
            yield


def result(model: nn.Module, inputs: Any, names: list[str]) -> Tensor:
    """The first output with one result, or one for each token, of every sample."""
    with texts(model, names):
        found = float_tensors(call(model, inputs))
    return found[0]


def rows(inputs: Any, take: list[int]) -> Any:
    """Some samples of a batch."""
    return tree_map_only(Tensor, lambda t: t[take], dict(inputs) if isinstance(inputs, Mapping) else inputs)


def relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over norm."""
    return float((found - expected).norm() / expected.norm())


def arguments(model: nn.Module) -> set[str]:
    """Names of what the model takes."""
    return set(inspect.signature(model.forward).parameters)


def padded(model: nn.Module, inputs: Mapping[str, Tensor], side: str, name: str) -> tuple[dict[str, Tensor], slice]:
    """A text with padding on one side, and where its tokens are then."""
    prefix = name.removesuffix("input_ids")
    tokens = inputs[name]
    B, N = tokens.shape
    pad = getattr(model.config, "pad_token_id", None) or 0
    more, none = tokens.new_full((B, PADDING), pad), tokens.new_zeros(B, PADDING)
    mask = tokens.new_ones(B, N)
    left = side == "left"
    found = {
        **inputs,
        name: torch.cat([more, tokens] if left else [tokens, more], dim=1),
        f"{prefix}attention_mask": torch.cat([none, mask] if left else [mask, none], dim=1),
    }
    if left and f"{prefix}position_ids" in arguments(model):
        found[f"{prefix}position_ids"] = (found[f"{prefix}attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    return found, slice(PADDING, None) if left else slice(0, N)


def in_a_batch(model: nn.Module, inputs: Any) -> float:
    """A sample alone, and as the last of a batch."""
    B = batch_size(inputs)
    names = [f"text {n}" for n in range(B)]
    together = result(model, inputs, names)
    alone = result(model, rows(inputs, [B - 1]), names[-1:])
    return relative(together[-1:], alone)


def permuted(model: nn.Module, inputs: Any) -> float:
    """A batch, and the same in another order."""
    B = batch_size(inputs)
    names, order = [f"text {n}" for n in range(B)], list(range(1, B)) + [0]
    first = result(model, inputs, names)
    return relative(result(model, rows(inputs, order), [names[n] for n in order]), first[order])


def beside_padding(model: nn.Module, inputs: Mapping[str, Tensor], side: str, name: str = "input_ids") -> float:
    """A sample alone, and one that is padded, in a batch with others."""
    B = batch_size(inputs)
    names = [f"text {n}" for n in range(B)]
    alone = result(model, rows(inputs, [0]), names[:1])
    short, own = padded(model, rows(inputs, [0]), side, name)
    long = {key: torch.cat([t] * 2) for key, t in short.items()}
    long[name] = torch.cat([short[name], torch.randint(5, 90, short[name].shape)])
    mask = name.replace("input_ids", "attention_mask")
    long[mask] = torch.cat([short[mask], torch.ones_like(short[mask])])
    places = name.replace("input_ids", "position_ids")
    if places in short:
        long[places] = (long[mask].cumsum(dim=1) - 1).clamp(min=0)
    together = result(model, long, [names[0], "another"])[:1]
    tokens = together.shape[1] == short[name].shape[1] != alone.shape[1]
    return relative(together[:, own] if tokens else together, alone)


def cache_of(output: Any) -> Any:
    """What the model returns as its cache."""
    for name in ("past_key_values", "cache_params", "state"):
        if output.get(name, None) is not None:
            return name, output[name]
    return "", None


def stepwise(model: nn.Module, inputs: Mapping[str, Tensor], prefix: str, sizes: list[int]) -> Tensor:
    """Logits of a text that comes in parts, with a cache."""
    name = f"{prefix}input_ids"
    tokens, start, found, held = inputs[name], 0, [], {}
    for size in sizes:
        given = {**inputs, name: tokens[:, start : start + size], "use_cache": True, **held}
        output = model(**given)
        found.append(output.logits)
        start += size
        key, cache = cache_of(output)
        if cache is None:
            raise NotImplementedError("no cache")
        held = {key: cache}
    return torch.cat(found, dim=1)


def cached(model: nn.Module, inputs: Mapping[str, Tensor], prefix: str = "") -> float:
    """One pass, and token by token with a cache."""
    N = inputs[f"{prefix}input_ids"].shape[1]
    names = [f"text {n}" for n in range(batch_size(inputs))]
    with texts(model, names):
        once = model(**inputs, use_cache=False).logits
        return relative(stepwise(model, inputs, prefix, [2] + [1] * (N - 2)), once)


def cropped(model: nn.Module, inputs: Mapping[str, Tensor], prefix: str = "") -> float:
    """One pass, and with a cache of which the end was cut off again."""
    name = f"{prefix}input_ids"
    tokens = inputs[name]
    N = tokens.shape[1]
    names = [f"text {n}" for n in range(batch_size(inputs))]
    with texts(model, names):
        once = model(**inputs, use_cache=False).logits
        wrong = torch.cat([tokens[:, : N - 2], tokens[:, :2]], dim=1)
        key, cache = cache_of(model(**{**inputs, name: wrong[:, : N - 2]}, use_cache=True))
        if not hasattr(cache, "activate_past_recording"):
            raise NotImplementedError("the cache cannot be cut")
        cache.activate_past_recording()
        model(**{**inputs, name: wrong[:, N - 2 :]}, use_cache=True, **{key: cache})
        cache.crop(-2)
        last = model(**{**inputs, name: tokens[:, N - 2 :]}, use_cache=True, **{key: cache}).logits
        return relative(last, once[:, N - 2 :])


def comparisons(inputs: Any, model: nn.Module) -> dict[str, Run]:
    """What can be compared for such inputs."""
    found: dict[str, Run] = {"in a batch": in_a_batch, "permuted": permuted}
    if not isinstance(inputs, Mapping) or not hasattr(model, "config"):
        return found
    for name in ("input_ids", "decoder_input_ids"):
        prefix = name.removesuffix("input_ids")
        if name in inputs and f"{prefix}attention_mask" in arguments(model):
            found[f"{prefix}left"] = lambda m, i, n=name: beside_padding(m, i, "left", n)
            found[f"{prefix}right"] = lambda m, i, n=name: beside_padding(m, i, "right", n)
        last = name == "decoder_input_ids" or "decoder_input_ids" not in inputs
        if name in inputs and last and arguments(model) & {"past_key_values", "cache_params", "state"}:
            found["cached"] = lambda m, i, p=prefix: cached(m, i, p)
            found["cropped"] = lambda m, i, p=prefix: cropped(m, i, p)
    return found


def differences(digital: nn.Module, converted: nn.Module, inputs: Any) -> dict[str, float | str]:
    """By comparison, how far results differ on noisy cells; or why that was not compared, or refused."""
    found: dict[str, float | str] = {}
    for name, compare in comparisons(inputs, digital).items():
        try:
            with crossbars(converted).state.set_mode("bypass"):
                itself = compare(converted, inputs)
        except Exception as error:
            found[name] = f"cannot: {type(error).__name__} {str(error)[:60]}"
            continue
        if not itself < 2e-6:
            found[name] = f"digital {itself:.1g}"
            continue
        try:
            found[name] = compare(converted, inputs)
        except of.BadInput as error:
            found[name] = f"refused: {error}"
    return found
