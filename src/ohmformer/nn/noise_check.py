"""A check of every conversion: a sample's noise depends neither on padding, nor on other rows, nor on a cache.

A few rows of the sample are run alone, in a batch, with padding, and with a cache. Where the original gives the same
result each time, the converted model must do so too, on cells that are noisy but round nothing. What differs is said in
a warning, since only the model's own code could change it.
"""

from __future__ import annotations

import inspect
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
from ohmformer.nn.convert.self_check import TOLERANCE, evaluating, floats, nearest, outputs_of, tolerance
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv import KVOperand
from ohmformer.nn.operands.state import State
from ohmformer.nn.operands.weight import WeightOperand
from ohmformer.streams import samples

SHARE = 0.01
"""Largest difference between two ways to run a sample, as a share of what noise does to its result."""
LEAST = 1e-5
"""Smallest relative difference that is not rounding."""
NAMES = ("check 0", "check 1")


class UnstableNoise(UserWarning):
    """For this model the noise of a sample depends on padding, on the other rows of a batch, or on a cache."""


@dataclass(frozen=True)
class Way:
    """One way to run a sample: its result should be that of the sample alone.

    Attributes:
        how: what it is, for the warning.
        inputs: of the call; the sample is their first row.
        tokens: first and last (excluded) place of its tokens, for outputs with one entry for each token.
    """

    how: str
    inputs: Any
    tokens: tuple[int | None, int | None] = (None, None)

    def own(self, output: Tensor, alone: Tensor) -> Tensor | None:
        """What belongs to the sample in an output; None if that has another shape than `alone`."""
        found = output[:1]
        if found.shape != alone.shape and found.dim() > 1:
            found = found[:, slice(*self.tokens)]
        return found if found.shape == alone.shape else None


def warn_of_unstable_noise(
    original: nn.Module,
    converted: nn.Module,
    state: State,
    operands: tuple[Operand, ...],
    sample: Any,
    *,
    stacklevel: int,
) -> None:
    """Warn of each way to run a sample that changes its noise. `sample` holds samples along its first axis."""
    noisy = [op for op in operands if not writing.exact(op.array)]
    if not noisy:
        return
    lines: list[str] = []
    with (
        torch.no_grad(),
        evaluating(original),
        unchanged_structure(original),
        unchanged_structure(converted),
        _noisy_cells(state),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        if any(isinstance(op, KVOperand) for op in noisy):
            lines += _unstable_ways(original, converted, [op.name for op in noisy if isinstance(op, KVOperand)], sample)
        lines += _unstable_steps(original, converted, state, noisy, sample)
    for line in lines:
        warnings.warn(line, UnstableNoise, stacklevel=stacklevel + 1)


@contextmanager
def _noisy_cells(state: State) -> Iterator[None]:
    """Inside, K and V are written with their noise, weights without, and nothing is rounded."""
    before = state.level, state.rounded
    state.level, state.rounded = "noise", False
    try:
        with state.set_mode("written"):
            yield
    finally:
        state.level, state.rounded = before
        state.threads.call.written.clear()


def _unstable_ways(original: nn.Module, converted: nn.Module, names: list[str], sample: Any) -> list[str]:
    row = _alone(sample)
    found = _differing(original, converted, names, row, _in_a_batch(sample))
    if isinstance(row, Mapping):
        short = _shortened(row)
        found += _differing(original, converted, names, short, _with_padding(original, short))
    return found


def _differing(
    original: nn.Module, converted: nn.Module, names: list[str], alone: Any, ways: Iterator[Way]
) -> list[str]:
    """What to say of the ways in which noise is another than `alone`."""
    exact, noisy = _result(original, alone), _result(converted, alone)
    if exact is None or noisy is None:
        return []
    effect = _relative(noisy, exact)
    found = []
    for way in ways:
        expected = _own_result(original, way, exact)
        if expected is None or not _relative(expected, exact) <= TOLERANCE:
            continue
        seen = _own_result(converted, way, noisy)
        if seen is None:
            continue
        error = _relative(seen, noisy)
        if error <= max(LEAST, SHARE * effect, 10 * _relative(expected, exact)):
            continue
        where = re.sub(r"\d+", "*", _first(original, converted, alone, way, names))
        remedy = f"keep it digital with rules={{{where!r}: None}}" if where else "keep such attention digital by rules"
        found.append(
            f"the noise of a sample {way.how} is another than that of the sample alone (results differ by {error:.1g}, "
            f"relative){f', first at {where}' if where else ''}, since the model writes other values then, or in "
            f"another order; give samples of one length without padding, or {remedy}"
        )
    return found


def _unstable_steps(
    original: nn.Module, converted: nn.Module, state: State, noisy: list[Operand], sample: Any
) -> list[str]:
    """What differs where tokens of a text come one by one with a cache."""
    alone = _alone(sample)
    if not isinstance(alone, Mapping) or "past_key_values" not in _arguments(original):
        return []
    prefix = "decoder_" if "decoder_input_ids" in alone else ""
    tokens = alone.get(f"{prefix}input_ids")
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or tokens.shape[1] < 3:
        return []
    exact, last = _attempt(lambda: _steps(original, alone, prefix))
    if exact is None or not _relative(last, exact) <= TOLERANCE:
        return []
    once, stepped = _attempt(lambda: _steps(converted, alone, prefix))
    if once is None:
        return []
    found = []
    used = set(state.threads.call.uses)
    missed = [op.name for op in noisy if isinstance(op, WeightOperand) and not op.bank and op.name not in used]
    if missed and not prefix:
        found.append(
            f"a step with a cache computes {missed[0]} without a matrix product, so it has the noise of its weights "
            f"only where several tokens come at once; keep it digital with rules={{{missed[0]!r}: None}}"
        )
    error = _relative(stepped, once)
    if error > max(LEAST, SHARE * _relative(once, exact), 10 * _relative(last, exact)):
        found.append(
            f"the noise of a token that is decoded with a cache is another than in one pass over its text (results "
            f"differ by {error:.1g}, relative), since the model masks or writes other values then; compare only texts "
            "that were run in the same way"
        )
    return found


def _steps(model: nn.Module, inputs: Mapping[str, Any], prefix: str) -> tuple[Tensor, Tensor]:
    """The result of the last token in one pass, and in steps with a cache."""
    name = f"{prefix}input_ids"
    given = {key: value for key, value in inputs.items() if key != f"{prefix}attention_mask"}
    tokens, start, held, result = given[name], 0, _empty_cache(model), None
    with samples(NAMES[:1]):
        once = floats(call(model, {**given, "use_cache": False}))[0]
    N = tokens.shape[1]
    for size in (N - 2, 1, 1):
        given[name] = tokens[:, start : start + size]
        with samples(NAMES[:1]):
            output = model(**given, use_cache=True, past_key_values=held)
        start, held, result = start + size, output.get("past_key_values") or held, floats(output)[0]
    assert result is not None
    return once[:, -1:], result


def _empty_cache(model: nn.Module) -> Any:
    """A cache of Hugging Face for models that are given one; None lets the model make its own."""
    kind = getattr(sys.modules.get("transformers"), "DynamicCache", None)
    encodes = getattr(model.config, "is_encoder_decoder", False)
    return None if kind is None or encodes else kind(config=model.config)


def _in_a_batch(sample: Any) -> Iterator[Way]:
    if batch_size(sample) > 1:
        beside = _rows(sample, [_chosen(sample), 0])
        yield Way("in a batch with others", beside, _mask_row(beside) or (None, None))


def _with_padding(model: nn.Module, alone: Mapping[str, Any]) -> Iterator[Way]:
    for side in ("left", "right"):
        padded = _padded(model, alone, side)
        if padded is not None:
            N = alone["input_ids"].shape[1]
            yield Way(f"with padding on the {side}", padded, (-N, None) if side == "left" else (0, N))


def _shortened(alone: Mapping[str, Any]) -> dict[str, Any]:
    """Two thirds of a text, so that with padding it is no longer than the sample, which may be as long as can be."""
    tokens = alone.get("input_ids")
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or tokens.shape[1] < 6:
        return dict(alone)
    N = tokens.shape[1]
    return {key: value[:, : N - N // 3] if _of_tokens(key, value, N) else value for key, value in alone.items()}


def _chosen(sample: Any) -> int:
    """The row that is checked: the last one, whose place in a batch says most."""
    return batch_size(sample) - 1


def _alone(sample: Any) -> Any:
    """One row of a sample, without padding."""
    row = _rows(sample, [_chosen(sample)])
    tokens = _mask_row(row)
    if tokens is None or not isinstance(row, Mapping):
        return row
    N = row["attention_mask"].shape[1]
    cut = {
        k: v[:, slice(*tokens)] if isinstance(v, Tensor) and v.dim() == 2 and v.shape[1] == N else v
        for k, v in row.items()
    }
    return {**row, **{k: v for k, v in cut.items() if not k.startswith("decoder_")}}


def _mask_row(inputs: Any) -> tuple[int, int] | None:
    """Where the tokens of the first row stand, if a mask says so, and they stand side by side."""
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if not isinstance(mask, Tensor) or mask.dim() != 2 or mask.is_floating_point():
        return None
    places = mask[0].nonzero().flatten().tolist()
    return (places[0], places[-1] + 1) if places and len(places) == places[-1] - places[0] + 1 else None


def _padded(model: nn.Module, alone: Mapping[str, Any], side: str) -> dict[str, Any] | None:
    """A text with padding, half as long as itself so that blocks of tokens are cut elsewhere; None without tokens."""
    tokens = alone.get("input_ids")
    known = _arguments(model)
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or "attention_mask" not in known:
        return None
    N = tokens.shape[1]
    more = max(1, N // 2)
    widths = (more, 0) if side == "left" else (0, more)
    given = {**alone, "attention_mask": torch.ones_like(tokens)}
    found = {
        key: nn.functional.pad(value, widths) if _of_tokens(key, value, N) else value for key, value in given.items()
    }
    pad = getattr(getattr(model, "config", None), "pad_token_id", None)
    if isinstance(pad, int) and pad >= 0:
        found["input_ids"] = torch.where(found["attention_mask"].bool(), found["input_ids"], pad)
    if "position_ids" in known and side == "left":
        found["position_ids"] = (found["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    return found


def _of_tokens(name: str, value: Any, N: int) -> bool:
    return isinstance(value, Tensor) and value.dim() == 2 and value.shape[1] == N and not name.startswith("decoder_")


def _arguments(model: nn.Module) -> set[str]:
    return set(inspect.signature(model.forward).parameters)


def _rows(inputs: Any, rows: list[int]) -> Any:
    B = batch_size(inputs)
    plain = dict(inputs) if isinstance(inputs, Mapping) else inputs
    return tree_map_only(Tensor, lambda t: t[rows] if t.dim() and len(t) == B else t, plain)


def _attempt(run: Callable[[], Any]) -> Any:
    """What a run of the model returns; (None, None) where the model cannot take such inputs, or refuses them."""
    try:
        return run()
    except Exception:  # anything that a model may do with inputs that were made up
        return None, None


def _result(model: nn.Module, inputs: Any) -> Tensor | None:
    """The first result [rows, ...] of a call; None where there is none that is finite."""

    def run() -> tuple[Tensor, None]:
        with samples(NAMES[: batch_size(inputs)]):
            found = floats(call(model, inputs))
        return next(t for t in found if t.dim() and len(t) == batch_size(inputs)), None

    found: Tensor | None = _attempt(run)[0]
    return found if found is not None and bool(found.isfinite().all()) else None


def _own_result(model: nn.Module, way: Way, alone: Tensor) -> Tensor | None:
    output = _result(model, way.inputs)
    return None if output is None else way.own(output, alone)


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _first(original: nn.Module, converted: nn.Module, alone: Any, way: Way, names: list[str]) -> str:
    """The first module with K or V, in order of completion, whose noise differs though its exact output does not.

    Empty where no module has outputs by which that is seen.
    """
    holders = {name.partition("#")[0].removesuffix(".K").removesuffix(".V") for name in names}
    runs = []
    for model in (original, converted):
        for inputs in (alone, way.inputs):
            with samples(NAMES[: batch_size(inputs)]):
                runs.append(outputs_of(model, inputs))
    for name in runs[0]:
        exact, other, noisy, found = (run.get(name, [None])[0] for run in runs)
        if exact is None or other is None or noisy is None or found is None or not exact.dim():
            continue
        other, found = way.own(other, exact), way.own(found, noisy)
        if other is None or found is None or not _relative(other, exact) <= tolerance(original):
            continue
        if _relative(found, noisy) > LEAST:
            around = nearest(name, names)
            return around if around in holders else ""
    return ""
