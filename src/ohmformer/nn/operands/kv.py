"""K and V on crossbars: written for every input, with fresh noise; with a cache, each token once.

Shapes: B samples, R heads, N tokens as they come, n tokens that are written, d features, M inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ohmformer.array import encoding, writing
from ohmformer.array.codec import Codec
from ohmformer.array.crossbar import Programmed
from ohmformer.array.folded import Folded
from ohmformer.array.spec import Crossbar
from ohmformer.device import faults
from ohmformer.mitigation.spec import Clip
from ohmformer.nn.operands.base import Operand, numbers_by_place
from ohmformer.nn.operands.clipping import soft_clips
from ohmformer.nn.operands.kv_cache import WrittenTokens
from ohmformer.nn.operands.kv_transform import TRADE, Conditioner
from ohmformer.nn.operands.observation import Observation
from ohmformer.nn.operands.state import CallInfo, Use
from ohmformer.nn.operands.unpad import Numbers, Unpadding, place_at, places, ring_places, unpad
from ohmformer.streams import SampleStreams, TokenStreams, sample_streams


@dataclass(eq=False)
class KVOperand(Operand):
    """K or V, written at run time.

    Attributes:
        fault_name: the arrays that are used; layers that share arrays share their faults.
        axis: "K" (tokens are outputs) or "V" (tokens are inputs).
        write: which factor of the product is written; "left" for Q in place of K, say, whose tokens are outputs.
        causal: tokens may come one by one, since no query sees later ones, or since queries are written themselves.
            Each draws the noise of its number, and what would be a range over all tokens is fixed by calibration.
        memristive: its cells need no protection where this is False.
        clip: in place of the model's; a tuple has one for each head.
        w_range: the calibrated range of a causal operand, [1, R or 1, 1, d or 1].
        conditioner: what is done to tokens before they are written, and undone behind the product.
        plain: the array as it is without a conditioner.
        plain_clip: the clip as rules have it, without a calibration.
        watched: what the calibration of conditioners saw.
    """

    dynamic: ClassVar[bool] = True

    fault_name: str = ""
    axis: str = "K"
    write: Literal["right", "left"] = "right"
    causal: bool = False
    memristive: bool = True
    clip: Literal["model"] | Clip | tuple[Clip, ...] = "model"
    w_range: Tensor | None = None
    conditioner: Conditioner | None = None
    plain: Crossbar = field(init=False)
    plain_clip: Literal["model"] | Clip | tuple[Clip, ...] = field(init=False)
    watched: list[Observation] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        """The array is used as it is."""
        self.plain, self.plain_clip = self.array, self.clip

    @property
    def conditionable(self) -> bool:
        """Whether tokens of K or V are written, and into cells that need it."""
        return self.write == "right" and self.memristive

    def condition(self, conditioner: Conditioner | None) -> None:
        """Take another conditioning, or none; ranges are to be calibrated anew.

        Raises:
            BadInput: the array cannot be used so.
        """
        self.array = self.plain if conditioner is None else conditioner.spec.on(self.plain)
        self.conditioner, self.x_range, self.w_range = conditioner, None, None
        self.state.threads.call.written.pop(self.name, None)

    def product(self, x: Tensor, tokens: Tensor, valid: Tensor | None = None, queries: int | None = None) -> Tensor:
        """Inputs with K or V tokens[B, R, N, d]: x[B, R, M, d] @ K.T, or x[B, R, M, N] @ V.

        `valid` [B or 1, N] is False where no token is: padding, and slots of a cache that were not written yet.
        `queries` is how many of the tokens may be new in this call; by default M.

        Raises:
            BadInput: a cache holds other tokens than were written for the sample.
        """
        w = tokens if self.axis == "K" else tokens.transpose(-2, -1)
        use, unpadding = self.state.use(self.name, self.calls_per_forward), unpad(valid, len(tokens))
        if self.state.mode == "ideal":
            return self._ideal(x, tokens, unpadding)
        if self.simulated:
            return self._product(x, tokens, unpadding, queries or x.shape[-2], use)
        exact = self.exact_product(x, w)
        came = tokens.detach()
        if self.state.mode == "observe inputs" and self.causal:
            self.observe_range(came if unpadding is None else unpadding.gather(came, -2), unpadding)
        if self.state.mode == "observe tokens" and self.conditionable:
            self.watched.append(Observation.of(x.detach(), came, unpadding, self.axis))
        return exact

    def _ideal(self, x: Tensor, tokens: Tensor, unpadding: Unpadding | None) -> Tensor:
        """The product with the tokens that are written, without what cells do to them."""
        if unpadding is not None:
            tokens = unpadding.gather(tokens, -2)
            x = x if self.axis == "K" else unpadding.gather(x, -1)
        y = x @ (tokens.transpose(-2, -1) if self.axis == "K" else tokens)
        return y if unpadding is None or self.axis == "V" else unpadding.scatter(y, -1)

    def observe_input(self, x: Tensor) -> None:
        """As in the base, of inputs as they are sent."""
        super().observe_input(x if self.conditioner is None else self.conditioner.to(x).inputs(x))

    def _product(self, x: Tensor, tokens: Tensor, unpadding: Unpadding | None, new: int, use: Use) -> Tensor:
        unpadding, numbers = self._placed(unpadding, tokens, use.info)
        if unpadding is not None:
            tokens = unpadding.gather(tokens, -2)
            x = x if self.axis == "K" else unpadding.gather(x, -1)
        given, came, mean = x, tokens.detach(), None
        conditioner = None if self.conditioner is None else self.conditioner.to(tokens)
        if conditioner is not None:
            tokens, mean = conditioner.tokens(tokens, unpadding)
            x = conditioner.inputs(x)
        w = tokens if self.axis == "K" else tokens.transpose(-2, -1)
        array = self.written_array(use)
        streams = self._streams(came, unpadding, numbers, use, array)
        fresh = came.shape[-2] if self.write == "left" else new
        held, gain = self._written(tokens.detach(), came, unpadding, streams, fresh, array, use)
        if gain is not None:
            x = x * gain
            w = w / torch.where(gain > 0, gain, 1.0)
        columns = unpadding.lengths if unpadding is not None and self.axis == "K" else None
        y = self.multiply(x, w, held, use, queries=new, columns=columns)
        y = y if conditioner is None else conditioner.outputs(y, given, mean)
        return y if unpadding is None or self.axis == "V" else unpadding.scatter(y, -1)

    def _written(
        self,
        tokens: Tensor,
        came: Tensor,
        unpadding: Unpadding | None,
        streams: SampleStreams,
        new: int,
        array: Crossbar,
        use: Use,
    ) -> tuple[Folded | Programmed, Tensor | None]:
        """What the cells hold of tokens[B, R, n, d]; also the gain of each row, where rows have ranges of their own.

        Tokens are known again by what they were when they `came`, before conditioning rounded them.
        """
        w_range = self.range(tokens, unpadding)
        gain = None
        if self.axis == "V" and self.array.scale == "token":
            # A row's own range cannot be applied to column sums, so it is applied to the input of the row.
            common = self.w_range.to(tokens) if self.w_range is not None else w_range.amax(dim=-2, keepdim=True)
            gain = (w_range / torch.where(common > 0, common, 1.0)).transpose(-2, -1)
        else:
            common = w_range
        call = self.state.threads.call
        if not self._remembers(use.info):
            call.written.pop(self.name, None)
            return self._write(tokens, w_range, common, streams, array, use), gain
        settings = self._settings(use)
        cells: WrittenTokens | None = call.written.get(self.name)
        if cells is None or (self.causal and new >= came.shape[-2]) or not cells.matches(came, streams, settings):
            held: Folded = self._write(tokens, w_range, common, streams, array, use)
        elif isinstance(streams, TokenStreams):
            split = cells.split(came, streams, new)
            if not writing.exact(array):
                call.moved[self.name] = split.moved
            written = self._write(split.new(tokens), split.new(w_range), split.new(common), split.streams, array, use)
            held = split.merged(cells.held, written, self.axis, own_units=self._own_range())
        else:
            held = (
                cells.held if cells.equals(came, streams) else self._write(tokens, w_range, common, streams, array, use)
            )
        call.written[self.name] = WrittenTokens(settings, came.clone(), streams, held)
        return held, gain

    def _settings(self, use: Use) -> tuple[object, ...]:
        """What decides how a token is written, beside itself and its stream."""
        state = self.state
        return use.step, state.level, state.rounded, state.clip, self.clip, self.w_range, self.conditioner

    def numbers_of_inputs(self, B: int, queries: int, info: CallInfo) -> Numbers:
        """As in the base; where queries are written, inputs are keys, and may be those of other tokens."""
        found = super().numbers_of_inputs(B, queries, info)
        if self.write == "right" or not found or len(found[0]) == queries:
            return found
        return numbers_by_place(B, queries, info)

    def _remembers(self, info: CallInfo) -> bool:
        """Whether tokens may come back from a cache, and what cells hold can be taken apart token by token."""
        return self._apart() and (info.cached or (self.causal and not torch.is_grad_enabled()))

    def _apart(self) -> bool:
        """True if what cells hold can be taken apart token by token.

        Faults belong to places, not to tokens, and reference columns to all of them.
        """
        return self.array.encoding == "differential" and not self.needs_cells and not faults.faulty(self.array.cell)

    def _write(
        self,
        tokens: Tensor,
        w_range: Tensor,
        common: Tensor,
        streams: SampleStreams,
        array: Crossbar,
        use: Use,
    ) -> Any:
        codec = self.codec
        codes = codec.codes(tokens, w_range)
        if self.axis == "V":
            codes, common = codes.transpose(-2, -1), common.transpose(-2, -1)
        return self.hold(
            codes,
            array,
            use,
            w_range=common,
            stream=use.stream if writing.exact(array) and streams.present is None else streams,
            fault_stream=use.stream.child("faults", self.fault_name),
            max_code=codec.max_code,
            major="outputs" if self.axis == "K" else "inputs",
        )

    @property
    def codec(self) -> Codec:
        """How tokens become codes, as they leave the conditioner."""
        clips = soft_clips(self.state.clip if self.clip == "model" else self.clip, self.array)
        if self.conditioner is None:
            return Codec(self.array, clips, rounded=self.state.rounded)
        trade = TRADE if self.conditioner.spec.unbiased else None
        return Codec(self.array, clips, rounded=self.state.rounded, round_last=True, trade=trade)

    def _placed(self, unpadding: Unpadding | None, tokens: Tensor, call: CallInfo) -> tuple[Unpadding | None, Numbers]:
        """Where tokens[B, R, N, d] are written, and the number of each; no numbers if noise does not belong to tokens.

        Tokens of a window stand at their numbers where places matter, as they do in a pass over all tokens.
        """
        B, _, N, _ = tokens.shape
        if not self.causal:
            return unpadding, ()
        if self.write == "left" and unpadding is None and len(call.numbers) == B and len(call.numbers[0]) == N:
            in_order = all(row == tuple(range(N)) for row in call.numbers)
            if in_order or not self._places_matter():
                return None, call.numbers
            return place_at(torch.tensor(call.numbers, device=tokens.device))
        if call.ring and len(call.numbers) == B and len(call.numbers[0]) < N:
            return ring_places(unpadding, call.written, N, tokens.device)
        padding = call.padding[0] if call.padding else None
        matters = self._places_matter()
        return places(unpadding, call.written, B, N, tokens.device, at_numbers=matters, padding=padding)

    def _places_matter(self) -> bool:
        """True if a token's result depends on where it stands among the tokens of its sample."""
        return not self._apart() or (self.axis == "K" and self.noisy_reads())

    def _streams(
        self, tokens: Tensor, unpadding: Unpadding | None, numbers: Numbers, use: Use, array: Crossbar
    ) -> SampleStreams:
        """What the noise of tokens[B, R, n, d] belongs to: the sample, or each token by its number."""
        chip = use.stream.child(self.name, *use.call_index)
        B = len(tokens)
        if writing.exact(array):
            found = SampleStreams((chip,) * B)
        else:
            found = sample_streams(chip, B, use.info.names)
        if self.causal:
            return TokenStreams(found.streams, numbers=numbers)
        return SampleStreams(found.streams, None if unpadding is None else unpadding.lengths)

    def range(self, tokens: Tensor, unpadding: Unpadding | None) -> Tensor:
        """The range of tokens[B, R, n, d], of a shape that broadcasts against them."""
        if self.causal and self.w_range is not None and not self._own_range():
            fixed = self.w_range.to(tokens)
            # Windows that are folded among the heads may be more, or fewer, than on the sample.
            return fixed if fixed.shape[1] in (1, tokens.shape[1]) else fixed.amax(dim=1, keepdim=True)
        return self._share * _range_over(tokens.abs(), self._dims(), self.array.percentile, unpadding)

    @property
    def _share(self) -> float:
        """Full scale as a share of the largest magnitude."""
        return 1.0 if self.conditioner is None else self.conditioner.spec.range

    def _own_range(self) -> bool:
        """Whether each token has a range of its own."""
        return self.array.scale == "token" or (self.array.scale == "column" and self.axis == "K")

    def _dims(self) -> tuple[int, ...]:
        """The axes of tokens[B, R, N, d] that share a scale."""
        if self.array.scale == "column":
            return (-1,) if self.axis == "K" else (-2,)
        return {"tensor": (-3, -2, -1), "head": (-2, -1), "token": (-1,)}[self.array.scale]

    def observe_range(self, tokens: Tensor, unpadding: Unpadding | None) -> None:
        """Widen the range that is fixed for all tokens to what tokens[B, R, n, d] need."""
        if self.conditioner is not None:
            tokens, _ = self.conditioner.to(tokens).tokens(tokens, unpadding)
        dims = self._dims() if self.array.scale != "token" else (-2, -1)
        dims = (-2, -1) if self.array.scale == "column" and self.axis == "K" else dims
        seen = self._share * _range_over(tokens.abs(), dims, self.array.percentile, unpadding).amax(dim=0, keepdim=True)
        self.w_range = seen if self.w_range is None else torch.maximum(self.w_range, seen)


def _range_over(magnitude: Tensor, dims: tuple[int, ...], percent: float, unpadding: Unpadding | None) -> Tensor:
    """`encoding.magnitude_range` of magnitudes [B, R, n, d], of which only the tokens that are written count."""
    if percent >= 100 or unpadding is None or -2 not in dims:
        return encoding.magnitude_range(magnitude, dims, percent)
    rows = zip(magnitude.unbind(0), unpadding.lengths, strict=True)
    return torch.stack([encoding.magnitude_range(row[:, : max(1, n)], dims, percent) for row, n in rows])
