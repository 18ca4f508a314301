"""The noise check of every conversion: the noise of a sample must not depend on padding, other rows or a cache.

One row of the sample batch runs alone, in a batch, with padding, and with a cache. If the original gives the same
result each time, the converted model must do so too, on cells that add noise and round nothing. A difference is a
warning and no error, since it comes from the code of the model.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ohmformer.array import writing
from ohmformer.capture.inputs import batch_size, call
from ohmformer.capture.pytorch_quirks import unchanged_structure
from ohmformer.nn.convert.call_info import forward_signature
from ohmformer.nn.convert.hooks import ATTENDED
from ohmformer.nn.convert.self_check import TOLERANCE, evaluation_mode, floats, nearest, outputs_of, tolerance
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.state import State
from ohmformer.nn.operands.weight import WeightOperand
from ohmformer.streams import samples

SHARE = 0.01
"""Largest tolerated difference between two runs of a sample, as a share of what noise changes in its result."""
LEAST = 1e-5
"""Relative differences up to this one count as rounding."""
NAMES = ("check 0", "check 1")
"""Names of the samples in a run."""


class UnstableNoise(UserWarning):
    """The noise of a sample of this model depends on padding, on the other rows of its batch, or on a cache."""


@dataclass(frozen=True)
class Variant:
    """Another way to run a sample, which should give the result of the sample alone.

    Attributes:
        title: phrase for the warning, such as "with padding on the left".
        inputs: inputs of the call; the sample is their first row.
        tokens: first and last (excluded) position of the sample's tokens, for outputs with one entry per token.
    """

    title: str
    inputs: Any
    tokens: tuple[int | None, int | None] = (None, None)

    def sample_part(self, output: Tensor, alone: Tensor) -> Tensor | None:
        """Return the part of an output that belongs to the sample; None if its shape is not that of `alone`."""
        part = output[:1]
        if part.shape != alone.shape and part.dim() > 1:
            part = part[:, slice(*self.tokens)]
        return part if part.shape == alone.shape else None


def warn_of_unstable_noise(
    original: nn.Module,
    converted: nn.Module,
    state: State,
    operands: tuple[Operand, ...],
    sample: Any,
    *,
    stacklevel: int,
) -> None:
    """Warn of each way to run a sample that changes its noise.

    Args:
        original: the digital model.
        converted: the converted model.
        state: its settings.
        operands: its operands; those on exact cells are not checked.
        sample: the sample batch, with samples along the first axis.
        stacklevel: as in `warnings.warn`, counted from the caller.
    """
    noisy = [op for op in operands if not writing.exact(op.array)]
    if not noisy:
        return
    messages: list[str] = []
    with (
        torch.no_grad(),
        evaluation_mode(original),
        unchanged_structure(original),
        unchanged_structure(converted),
        _noisy_cells(state),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        if any(isinstance(op, KVOperand) for op in noisy):
            kv_names = [op.name for op in noisy if isinstance(op, KVOperand)]
            messages += _check_variants(original, converted, kv_names, sample)
        messages += _check_decoding(original, converted, state, noisy, sample)
    for message in messages:
        warnings.warn(message, UnstableNoise, stacklevel=stacklevel + 1)


@contextmanager
def _noisy_cells(state: State) -> Iterator[None]:
    """Context in which K and V are written with noise, weights without, and nothing is rounded."""
    before = state.level, state.rounded
    state.level, state.rounded = "noise", False
    try:
        with state.set_mode("written"):
            yield
    finally:
        state.level, state.rounded = before
        state.threads.call.written.clear()


def _check_variants(original: nn.Module, converted: nn.Module, names: list[str], sample: Any) -> list[str]:
    """Return a message for each change of the noise: by another row beside the sample, by padding left or right."""
    row = _row_alone(sample)
    messages = _compare(original, converted, names, row, _in_a_batch(sample))
    if isinstance(row, Mapping):
        short = _shortened(row)
        messages += _compare(original, converted, names, short, _with_padding(original, short))
    return messages


def _compare(
    original: nn.Module, converted: nn.Module, names: list[str], alone: Any, variants: Iterator[Variant]
) -> list[str]:
    """Return a message for each variant whose noise is not that of the sample `alone`; `names` are those of K and V."""
    noisy = _result(converted, alone)
    if noisy is None:
        return []
    messages = []
    for variant in variants:
        result = _sample_result(converted, variant, noisy)
        if result is None or (error := _relative(result, noisy)) <= LEAST:
            continue
        # The original runs only here, since the noise of most models is the same in every variant.
        exact = _result(original, alone)
        expected = None if exact is None else _sample_result(original, variant, exact)
        if exact is None or expected is None or not (exact_error := _relative(expected, exact)) <= TOLERANCE:
            continue
        if error <= max(SHARE * _relative(noisy, exact), 10 * exact_error):
            continue
        where = re.sub(r"\d+", "*", _first_module(original, converted, alone, variant, names))
        remedy = f"keep it digital with rules={{{where!r}: None}}" if where else "keep such attention digital by rules"
        messages.append(
            f"the noise of a sample {variant.title} differs from that of the sample alone (by {error:.1g} of the "
            f"result){f', first at {where}' if where else ''}, since the model then writes other values, or in another "
            f"order; give samples of one length without padding, or {remedy}"
        )
    return messages


def _check_decoding(
    original: nn.Module, converted: nn.Module, state: State, noisy: list[Operand], sample: Any
) -> list[str]:
    """Return messages on decoding with a cache: layers that it skips, and noise that differs from that of one pass."""
    alone = _row_alone(sample)
    if not isinstance(alone, Mapping) or "past_key_values" not in _argument_names(original):
        return []
    prefix = "decoder_" if "decoder_input_ids" in alone else ""
    tokens = alone.get(f"{prefix}input_ids")
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or tokens.shape[1] < 3:
        return []
    noisy_pass, decoded = _attempt(lambda: _decode(converted, alone, prefix))
    if noisy_pass is None:
        return []
    used = set(state.threads.call.uses)
    # What a decoder looks at is projected once, with its first tokens.
    cross_attending = bool(prefix) or any(name in alone for name in ATTENDED)
    weights = [] if cross_attending else [op for op in noisy if isinstance(op, WeightOperand) and not op.bank]
    missed = [op.name for op in weights if op.name not in used]
    error = _relative(decoded, noisy_pass)
    if not missed and error <= LEAST:
        return []
    exact, exact_decoded = _attempt(lambda: _decode(original, alone, prefix))
    if exact is None or not (exact_error := _relative(exact_decoded, exact)) <= TOLERANCE:
        return []
    messages = []
    if missed:
        messages.append(
            f"with a cache the model computes {missed[0]} without a matrix product for a single token, so the noise of "
            f"these weights is missing there; keep it digital with rules={{{missed[0]!r}: None}}"
        )
    if error > max(LEAST, SHARE * _relative(noisy_pass, exact), 10 * exact_error):
        messages.append(
            f"the noise of a token that is decoded with a cache differs from that in one pass over its text (by "
            f"{error:.1g} of the result), since the model then masks or writes other values; compare only texts that "
            "were run in the same way"
        )
    return messages


def _decode(model: nn.Module, inputs: Mapping[str, Any], prefix: str) -> tuple[Tensor, Tensor]:
    """Return the result of the last token in one pass over a text, and after decoding it with a cache.

    Args:
        model: the model.
        inputs: arguments of its call for one text.
        prefix: "decoder_" if the decoder has token inputs of its own, else "".
    """
    name = f"{prefix}input_ids"
    arguments = {key: value for key, value in inputs.items() if key != f"{prefix}attention_mask"}
    tokens, start, cache, result = arguments[name], 0, _empty_cache(model), None
    with samples(NAMES[:1]):
        one_pass = floats(call(model, {**arguments, "use_cache": False}))[0]
    N = tokens.shape[1]
    for size in (N - 2, 1, 1):
        arguments[name] = tokens[:, start : start + size]
        with samples(NAMES[:1]):
            output = model(**arguments, use_cache=True, past_key_values=cache)
        start, cache, result = start + size, output.get("past_key_values") or cache, floats(output)[0]
    assert result is not None
    return one_pass[:, -1:], result


def _empty_cache(model: nn.Module) -> Any:
    """Return an empty cache of Hugging Face; None for encoder-decoders, which make their own."""
    cache_class = getattr(sys.modules.get("transformers"), "DynamicCache", None)
    makes_cache = getattr(model.config, "is_encoder_decoder", False)
    return None if cache_class is None or makes_cache else cache_class(config=model.config)


def _in_a_batch(sample: Any) -> Iterator[Variant]:
    """Yield the checked row in one batch with the first row, if there are two."""
    if batch_size(sample) > 1:
        pair = _rows(sample, [_checked_row(sample), 0])
        yield Variant("in a batch with others", pair, _token_span(pair) or (None, None))


def _with_padding(model: nn.Module, alone: Mapping[str, Any]) -> Iterator[Variant]:
    """Yield a text with padding on either side."""
    for side in ("left", "right"):
        padded = _padded(model, alone, side)
        if padded is not None:
            N = alone["input_ids"].shape[1]
            yield Variant(f"with padding on the {side}", padded, (-N, None) if side == "left" else (0, N))


def _shortened(alone: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first two thirds of a text: with padding it then stays within the longest text of the model."""
    tokens = alone.get("input_ids")
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or tokens.shape[1] < 6:
        return dict(alone)
    N = tokens.shape[1]
    return {key: value[:, : N - N // 3] if _is_per_token(key, value, N) else value for key, value in alone.items()}


def _checked_row(sample: Any) -> int:
    """Return the index of the checked row: the last one."""
    return batch_size(sample) - 1


def _row_alone(sample: Any) -> Any:
    """Return the checked row of a sample batch, without padding."""
    row = _rows(sample, [_checked_row(sample)])
    tokens = _token_span(row)
    if tokens is None or not isinstance(row, Mapping):
        return row
    N = row["attention_mask"].shape[1]
    cut = {
        k: v[:, slice(*tokens)] if isinstance(v, Tensor) and v.dim() == 2 and v.shape[1] == N else v
        for k, v in row.items()
    }
    return {**row, **{k: v for k, v in cut.items() if not k.startswith("decoder_")}}


def _token_span(inputs: Any) -> tuple[int, int] | None:
    """Return first and last (excluded) position of the tokens in the first row; None without a mask or with gaps."""
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if not isinstance(mask, Tensor) or mask.dim() != 2 or mask.is_floating_point():
        return None
    places = mask[0].nonzero().flatten().tolist()
    return (places[0], places[-1] + 1) if places and len(places) == places[-1] - places[0] + 1 else None


def _padded(model: nn.Module, alone: Mapping[str, Any], side: str) -> dict[str, Any] | None:
    """Return a text with padding of half its length; None if the model takes no tokens or no mask.

    With this length, models that cut texts into blocks cut the padded text at other tokens.
    """
    tokens = alone.get("input_ids")
    argument_names = _argument_names(model)
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or "attention_mask" not in argument_names:
        return None
    N = tokens.shape[1]
    width = max(1, N // 2)
    widths = (width, 0) if side == "left" else (0, width)
    unpadded = {**alone, "attention_mask": torch.ones_like(tokens)}
    padded = {
        key: nn.functional.pad(value, widths) if _is_per_token(key, value, N) else value
        for key, value in unpadded.items()
    }
    pad = getattr(getattr(model, "config", None), "pad_token_id", None)
    if isinstance(pad, int) and pad >= 0:
        padded["input_ids"] = torch.where(padded["attention_mask"].bool(), padded["input_ids"], pad)
    if "position_ids" in argument_names and side == "left":
        padded["position_ids"] = (padded["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    return padded


def _is_per_token(name: str, value: Any, N: int) -> bool:
    """True if an argument has one entry for each of the N tokens [B, N] of the encoder, or of the only part."""
    return isinstance(value, Tensor) and value.dim() == 2 and value.shape[1] == N and not name.startswith("decoder_")


def _argument_names(model: nn.Module) -> set[str]:
    """Return the names of the arguments of a model."""
    return set(forward_signature(model).parameters)


def _rows(inputs: Any, rows: list[int]) -> Any:
    """Return these rows of a batch of inputs."""
    B = batch_size(inputs)
    tree = dict(inputs) if isinstance(inputs, Mapping) else inputs
    return tree_map_only(Tensor, lambda t: t[rows] if t.dim() and len(t) == B else t, tree)


def _attempt(run: Callable[[], Any]) -> Any:
    """Return the result of a run of the model; (None, None) if the model fails on these inputs or refuses them."""
    try:
        return run()
    except Exception:  # a model may raise anything on inputs that were made for this check
        return None, None


def _result(model: nn.Module, inputs: Any) -> Tensor | None:
    """Return the first tensor [rows, ...] in the output of a call; None without one, or if it is not finite."""

    def run() -> tuple[Tensor, None]:
        with samples(NAMES[: batch_size(inputs)]):
            tensors = floats(call(model, inputs))
        return next(t for t in tensors if t.dim() and len(t) == batch_size(inputs)), None

    result: Tensor | None = _attempt(run)[0]
    return result if result is not None and bool(result.isfinite().all()) else None


def _sample_result(model: nn.Module, variant: Variant, alone: Tensor) -> Tensor | None:
    """Return the result of the sample in a variant, of the shape of `alone`; None without one."""
    output = _result(model, variant.inputs)
    return None if output is None else variant.sample_part(output, alone)


def _relative(result: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm of the expected result."""
    return float((result - expected).norm() / expected.norm())


def _first_module(original: nn.Module, converted: nn.Module, alone: Any, variant: Variant, names: list[str]) -> str:
    """Return the name of the first module with K or V whose noise differs though its exact output does not.

    Modules are in order of completion. The name is empty if outputs of modules do not show where noise differs.
    """
    kv_modules = {name.partition("#")[0].removesuffix(".K").removesuffix(".V") for name in names}
    runs = []
    for model in (original, converted):
        for inputs in (alone, variant.inputs):
            with samples(NAMES[: batch_size(inputs)]):
                runs.append(outputs_of(model, inputs))
    for name in runs[0]:
        exact, exact_variant, noisy, noisy_variant = (run.get(name, [None])[0] for run in runs)
        if exact is None or exact_variant is None or noisy is None or noisy_variant is None or not exact.dim():
            continue
        exact_part = variant.sample_part(exact_variant, exact)
        noisy_part = variant.sample_part(noisy_variant, noisy)
        if exact_part is None or noisy_part is None or not _relative(exact_part, exact) <= tolerance(original):
            continue
        if _relative(noisy_part, noisy) > LEAST:
            holder = nearest(name, names)
            return holder if holder in kv_modules else ""
    return ""
