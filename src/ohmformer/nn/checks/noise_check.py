"""The noise check of every conversion: the noise of a sample must not depend on padding, other rows or a cache.

One row of the sample batch runs alone, in a batch, with padding, and with a cache. If the original gives the same
result each time, the converted model must do so too, on cells that add noise and round nothing: first where only K and
V have noise, as they are written; then, on hardware with read noise, with all noise. A difference is a warning and no
error, since it comes from the code of the model.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ohmformer.array import writing
from ohmformer.array.peripherals.spec import draws_for_reads
from ohmformer.array.spec import Level
from ohmformer.capture.inputs import batch_size, call
from ohmformer.capture.pytorch_quirks import evaluation_mode, unchanged_structure
from ohmformer.device.noise import exact_reads
from ohmformer.nn.calls.hooks import ATTENDED
from ohmformer.nn.calls.outputs import float_tensors
from ohmformer.nn.checks.comparing import (
    TOLERANCE,
    ModuleCalls,
    module_calls,
    nearest,
    relative_difference,
    tolerance,
)
from ohmformer.nn.checks.sample_variants import (
    Variant,
    argument_names,
    in_a_batch,
    padded_row,
    row_alone,
    shortened,
    with_padding,
)
from ohmformer.nn.checks.written_tokens import writes_same_tokens
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.weight import WeightOperand
from ohmformer.nn.shared.state import Mode, State
from ohmformer.streams import samples

SHARE = 0.001
"""Largest tolerated difference between two runs of a sample, as a share of what noise changes in its result."""
LEAST = 1e-5
"""Relative differences up to this one count as rounding."""
NAMES = ("check 0", "check 1")
"""Names of the samples in a run."""


class UnstableNoise(UserWarning):
    """The noise of a sample of this model depends on padding, on the other rows of its batch, or on a cache."""


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
        operands: its operands; those on exact cells are not checked, nor those whose wires lose voltage: what a cell
            contributes then depends on all that its array holds.
        sample: the sample batch, with samples along the first axis.
        stacklevel: as in `warnings.warn`, counted from the caller.
    """
    lossless = [op for op in operands if op.array.wires is None]
    written = [op for op in lossless if not writing.exact(op.array)]
    # Converters that round hide whose noise differs; level `noise` sums that of drivers and converters unrounded.
    rounds = any(op.array.adc.bits != "ideal" for op in operands)
    read = [op for op in lossless if draws_for_reads(op.array) or not (rounds or exact_reads(op.array.cell))]
    messages: list[str] = []
    with (
        torch.no_grad(),
        evaluation_mode(original),
        unchanged_structure(original),
        unchanged_structure(converted),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        if written:
            kv = [op for op in written if isinstance(op, KVOperand)]
            proved = _proves_rows_apart(converted, state, operands, sample)
            with _noisy_cells(state, "noise", "written"):
                if kv:
                    messages += _check_variants(original, converted, kv, sample, in_batch=not proved)
                messages += _check_decoding(original, converted, state, written, sample)
        if read and not messages:
            with _noisy_cells(state, "noise" if rounds else "array", "run"):
                messages += _check_variants(original, converted, read, sample)
                messages += _check_decoding(original, converted, state, read, sample)
    for message in messages:
        warnings.warn(message, UnstableNoise, stacklevel=stacklevel + 1)


@contextmanager
def _noisy_cells(state: State, level: Level, mode: Mode) -> Iterator[None]:
    """Context with another level and mode, in which nothing is rounded."""
    before = state.level, state.rounded
    state.level, state.rounded = level, False
    try:
        with state.set_mode(mode):
            yield
    finally:
        state.level, state.rounded = before
        state.threads.call.written.clear()


def _proves_rows_apart(converted: nn.Module, state: State, operands: Sequence[Operand], sample: Any) -> bool:
    """True if there are no other rows, or if a pass without noise proves that they change no noise of K and V."""
    if batch_size(sample) < 2:
        return True
    with _noisy_cells(state, "noise", "observe tokens"):
        return writes_same_tokens(converted, operands, row_alone(sample))


def _check_variants(
    original: nn.Module, converted: nn.Module, noisy: Sequence[Operand], sample: Any, *, in_batch: bool = True
) -> list[str]:
    """Return a message for each change of the noise: by another row beside the sample, by padding left or right.

    `in_batch` is False if nothing is left to show of other rows.
    """
    row, names = row_alone(sample), [op.name for op in noisy]
    messages = _compare(original, converted, names, row, in_a_batch(sample)) if in_batch else []
    if isinstance(row, Mapping):
        short = shortened(row)
        messages += _compare(original, converted, names, short, with_padding(original, short))
        if padded := padded_row(sample):
            messages += _compare(original, converted, names, padded[0], iter(padded[1:]))
    return messages


def _compare(
    original: nn.Module, converted: nn.Module, names: list[str], alone: Any, variants: Iterator[Variant]
) -> list[str]:
    """Return a message for each variant whose noise is not that of the sample `alone`.

    `names` are those of the noisy operands.
    """
    noisy = _result(converted, alone)
    if noisy is None:
        return []
    messages = []
    for variant in variants:
        result = _sample_result(converted, variant, noisy)
        if result is None or (error := relative_difference(result, noisy)) <= LEAST:
            continue
        # The original runs only here, since the noise of most models is the same in every variant.
        exact = _result(original, alone)
        expected = None if exact is None else _sample_result(original, variant, exact)
        if exact is None or expected is None or not (exact_error := relative_difference(expected, exact)) <= TOLERANCE:
            continue
        if error <= max(SHARE * relative_difference(noisy, exact), 10 * exact_error):
            continue
        where = re.sub(r"\d+", "*", _first_module(original, converted, alone, variant, names))
        remedy = f"keep it digital with rules={{{where!r}: None}}" if where else "keep such attention digital by rules"
        messages.append(
            f"the noise of a sample {variant.title} differs from that of the sample alone (by {error:.1g} of the "
            f"result){f', first at {where}' if where else ''}, since the cells then get other values, or in another "
            f"order; give samples of one length without padding, or {remedy}"
        )
    return messages


def _check_decoding(
    original: nn.Module, converted: nn.Module, state: State, noisy: list[Operand], sample: Any
) -> list[str]:
    """Return messages on decoding with a cache: layers that it skips, and noise that differs from that of one pass."""
    alone = row_alone(sample)
    if not isinstance(alone, Mapping) or "past_key_values" not in argument_names(original):
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
    error = relative_difference(decoded, noisy_pass)
    if not missed and error <= LEAST:
        return []
    exact, exact_decoded = _attempt(lambda: _decode(original, alone, prefix))
    if exact is None or not (exact_error := relative_difference(exact_decoded, exact)) <= TOLERANCE:
        return []
    messages = []
    if missed:
        messages.append(
            f"with a cache the model computes {missed[0]} without a matrix product for a single token, so the noise of "
            f"these weights is missing there; keep it digital with rules={{{missed[0]!r}: None}}"
        )
    if error > max(LEAST, SHARE * relative_difference(noisy_pass, exact), 10 * exact_error):
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
        one_pass = float_tensors(call(model, {**arguments, "use_cache": False}))[0]
    N = tokens.shape[1]
    for size in (N - 2, 1, 1):
        arguments[name] = tokens[:, start : start + size]
        with samples(NAMES[:1]):
            output = model(**arguments, use_cache=True, past_key_values=cache)
        start, cache, result = start + size, output.get("past_key_values") or cache, float_tensors(output)[0]
    assert result is not None
    return one_pass[:, -1:], result


def _empty_cache(model: nn.Module) -> Any:
    """Return an empty cache of Hugging Face; None for encoder-decoders, which make their own."""
    cache_class = getattr(sys.modules.get("transformers"), "DynamicCache", None)
    makes_cache = getattr(model.config, "is_encoder_decoder", False)
    return None if cache_class is None or makes_cache else cache_class(config=model.config)


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
            tensors = float_tensors(call(model, inputs))
        return next(t for t in tensors if t.dim() and len(t) == batch_size(inputs)), None

    result: Tensor | None = _attempt(run)[0]
    return result if result is not None and bool(result.isfinite().all()) else None


def _sample_result(model: nn.Module, variant: Variant, alone: Tensor) -> Tensor | None:
    """Return the result of the sample in a variant, of the shape of `alone`; None without one."""
    output = _result(model, variant.inputs)
    return None if output is None else variant.sample_part(output, alone)


def _first_module(original: nn.Module, converted: nn.Module, alone: Any, variant: Variant, names: list[str]) -> str:
    """Return the name of the first module of noisy operands whose noise differs though its exact output does not.

    Modules are in order of completion. If noise differs already in the input of that module, it is a function before it
    in the module around both, or a module whose output does not show which part belongs to the sample. The name is
    empty if outputs of modules do not show where noise differs.
    """
    holders = {name.partition("#")[0].removesuffix(".K").removesuffix(".V") for name in names}
    runs = []
    for model in (original, converted):
        for inputs in (alone, variant.inputs):
            with samples(NAMES[: batch_size(inputs)]):
                runs.append(module_calls(model, inputs))
    unclear = ""
    for name in runs[0]:
        calls = [run.get(name, ModuleCalls()) for run in runs]
        differs = _noise_differs(variant, [each.outputs for each in calls], tolerance(original))
        if differs is None:
            unclear = name if name in holders else unclear
        elif not differs:
            unclear = ""
        elif not _noise_differs(variant, [each.inputs for each in calls], tolerance(original)):
            holder = nearest(name, names)
            return holder if holder in holders else ""
        else:
            around = name.rpartition(".")[0]
            return unclear or (around if any(f"{holder}.".startswith(f"{around}.") for holder in holders) else "")
    return ""


def _noise_differs(variant: Variant, tensors: list[list[Tensor]], largest: float) -> bool | None:
    """Tell whether the noise of a value is not that of the sample alone.

    Args:
        variant: the other way to run the sample.
        tensors: the value as the first tensor of each run: exact alone and in the variant, noisy alone and in the
            variant.
        largest: relative difference up to which exact values count as equal.

    Returns:
        True or False; None if a value is missing, its shape does not show the part of the sample, or exact values
        differ.
    """
    if not all(tensors):
        return None
    exact, exact_variant, noisy, noisy_variant = (each[0] for each in tensors)
    if not exact.dim():
        return None
    exact_part, noisy_part = variant.sample_part(exact_variant, exact), variant.sample_part(noisy_variant, noisy)
    if exact_part is None or noisy_part is None or not relative_difference(exact_part, exact) <= largest:
        return None
    return relative_difference(noisy_part, noisy) > LEAST
