"""Other inputs made from a sample batch, on which a model should give the same results: rows alone, more padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ohmformer.capture.inputs import batch_size
from ohmformer.capture.torch_private import tree_map_only
from ohmformer.nn.calls.call_info import forward_signature


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


def row_alone(sample: Any) -> Any:
    """Return the checked row of a sample batch, without padding."""
    return _without_padding(_rows(sample, [checked_row(sample)]))


def _without_padding(row: Any) -> Any:
    """Return one row of a sample batch without padding, if its mask shows where its tokens are."""
    tokens = _token_span(row)
    if tokens is None or not isinstance(row, Mapping):
        return row
    N = row["attention_mask"].shape[1]
    return {name: value[:, slice(*tokens)] if _is_per_token(name, value, N) else value for name, value in row.items()}


def padded_row(sample: Any) -> tuple[Any, Variant] | None:
    """Return a row of a batch without its padding, and the variant that keeps it, beside another row if there is one.

    None if no row has padding, or if `with_padding` can pad a text.
    """
    if not isinstance(sample, Mapping) or isinstance(sample.get("input_ids"), Tensor):
        return None
    for b in range(batch_size(sample)):
        row = _rows(sample, [b])
        tokens = _token_span(row)
        if tokens is not None and 1 < tokens[1] - tokens[0] < row["attention_mask"].shape[1]:
            others = [other for other in (0, 1) if other != b and other < batch_size(sample)]
            return _without_padding(row), Variant("with padding", _rows(sample, [b, *others[:1]]), tokens)
    return None


def shortened(alone: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first two thirds of a text: with padding it then stays within the longest text of the model."""
    tokens = alone.get("input_ids")
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or tokens.shape[1] < 6:
        return dict(alone)
    N = tokens.shape[1]
    return {key: value[:, : N - N // 3] if _is_per_token(key, value, N) else value for key, value in alone.items()}


def in_a_batch(sample: Any) -> Iterator[Variant]:
    """Yield the checked row in one batch with the first row, if there are two."""
    if batch_size(sample) > 1:
        pair = _rows(sample, [checked_row(sample), 0])
        yield Variant("in a batch with others", pair, _token_span(pair) or (None, None))


def with_padding(model: nn.Module, alone: Mapping[str, Any]) -> Iterator[Variant]:
    """Yield a text with padding on either side."""
    for side in ("left", "right"):
        padded = _padded(model, alone, side)
        if padded is not None:
            N = alone["input_ids"].shape[1]
            yield Variant(f"with padding on the {side}", padded, (-N, None) if side == "left" else (0, N))


def change_padding(sample: Any) -> Any | None:
    """Return the sample with other padding; None if it has no masks [B, N] of tokens by the names of Hugging Face.

    Former padding changes its side. Then the mask hides further tokens in front (rows 0, 3, ...), behind (rows 1, 4,
    ...) or none.
    """
    if not isinstance(sample, Mapping):
        return None
    padded = dict(sample)
    for name in ("attention_mask", "decoder_attention_mask"):
        mask = padded.get(name)
        if isinstance(mask, Tensor) and mask.dim() == 2 and not mask.is_floating_point() and mask.shape[1] > 2:
            padded[name] = _other_padding(mask)
    return padded if any(value is not sample[name] for name, value in padded.items()) else None


def _other_padding(mask: Tensor) -> Tensor:
    """Return a mask [B, N] with other padding; a row that would lose all its tokens stays unchanged."""
    N = mask.shape[1]
    places = torch.arange(N, device=mask.device)
    rows = []
    for b, row in enumerate(mask.flip(1)):
        cut = min(1 + b // 3, N // 2)
        rows.append(row * ((places >= cut) if b % 3 == 0 else (places < N - cut) if b % 3 == 1 else places >= 0))
    changed = torch.stack(rows).to(mask.dtype)
    return torch.where(changed.any(dim=1, keepdim=True), changed, mask)


def _padded(model: nn.Module, alone: Mapping[str, Any], side: str) -> dict[str, Any] | None:
    """Return a text with padding of half its length; None if the model takes no tokens or no mask.

    With this length, models that cut texts into blocks cut the padded text at other tokens.
    """
    tokens = alone.get("input_ids")
    names = argument_names(model)
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or "attention_mask" not in names:
        return None
    N = tokens.shape[1]
    width = max(1, N // 2)
    widths = (width, 0) if side == "left" else (0, width)
    unpadded = {**alone, "attention_mask": torch.ones_like(tokens)}
    padded = {
        key: nn.functional.pad(value, (0, 0) * (value.dim() - 2) + widths) if _is_per_token(key, value, N) else value
        for key, value in unpadded.items()
    }
    pad = getattr(getattr(model, "config", None), "pad_token_id", None)
    if isinstance(pad, int) and pad >= 0:
        padded["input_ids"] = torch.where(padded["attention_mask"].bool(), padded["input_ids"], pad)
    if "position_ids" in names and side == "left":
        padded["position_ids"] = (padded["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    return padded


def checked_row(sample: Any) -> int:
    """Return the index of the checked row: the last one."""
    return batch_size(sample) - 1


def _token_span(inputs: Any) -> tuple[int, int] | None:
    """Return first and last (excluded) position of the tokens in the first row; None without a mask or with gaps."""
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if not isinstance(mask, Tensor) or mask.dim() != 2 or mask.is_floating_point():
        return None
    places = mask[0].nonzero().flatten().tolist()
    return (places[0], places[-1] + 1) if places and len(places) == places[-1] - places[0] + 1 else None


def _is_per_token(name: str, value: Any, N: int) -> bool:
    """True if an argument has one entry for each of the N tokens of the encoder, or of the only part.

    These are tensors [B, N], and embeddings [B, N, features].
    """
    dims = (2, 3) if name.endswith("inputs_embeds") else (2,)
    per_token = isinstance(value, Tensor) and value.dim() in dims and value.shape[1] == N
    return per_token and not name.startswith("decoder_")


def argument_names(model: nn.Module) -> set[str]:
    """Return the names of the arguments of a model."""
    return set(forward_signature(model).parameters)


def _rows(inputs: Any, rows: list[int]) -> Any:
    """Return these rows of a batch of inputs."""
    B = batch_size(inputs)
    tree = dict(inputs) if isinstance(inputs, Mapping) else inputs
    return tree_map_only(Tensor, lambda t: t[rows] if t.dim() and len(t) == B else t, tree)
