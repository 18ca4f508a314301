"""K and V on crossbars: written for every input, with fresh noise; with a cache, each token once.

Shapes: B samples, R heads, N tokens as they come, n tokens that are written, d features, M inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ohmformer.array import encoding, writing
from ohmformer.array.crossbar import Programmed
from ohmformer.array.folded import Folded
from ohmformer.array.spec import Crossbar
from ohmformer.array.unbiased_codes import quantise_unbiased, unbiased_codes
from ohmformer.device import faults
from ohmformer.mitigation.spec import Clip
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.clipping import Clips, clip_heads, largest_code
from ohmformer.nn.operands.kv_cache import Memory
from ohmformer.nn.operands.kv_transform import TRADE, Conditioner
from ohmformer.nn.operands.observation import Watched
from ohmformer.nn.operands.unpad import Compaction, compaction
from ohmformer.nn.threads import OfThread
from ohmformer.streams import SampleStreams, TokenStreams, sample_streams


@dataclass(eq=False)
class DynamicOperand(Operand):
    """K or V, written at run time.

    Attributes:
        fault_name: the arrays that are used; layers that share arrays share their faults.
        axis: "K" (tokens are outputs) or "V" (tokens are inputs).
        write: which factor of the product is written; "left" for Q in place of K, say, whose tokens are outputs.
        causal: no query sees later tokens, so tokens may come one by one: each draws the noise of its number, and what
            would be a range over all tokens is fixed by calibration.
        memristive: its cells need no protection where this is False.
        clip: in place of the model's; a tuple has one for each head.
        w_range: the calibrated range of a causal operand, [1, R or 1, 1, d or 1].
        conditioner: what is done to tokens before they are written, and undone behind the product.
        memory: what was written before, where there is a cache.
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
    memory = OfThread[Memory | None](None)
    plain: Crossbar = field(init=False)
    plain_clip: Literal["model"] | Clip | tuple[Clip, ...] = field(init=False)
    watched: list[Watched] = field(default_factory=list, repr=False)

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
        self.conditioner, self.memory, self.x_range, self.w_range = conditioner, None, None, None

    def product(self, x: Tensor, tokens: Tensor, valid: Tensor | None = None, queries: int | None = None) -> Tensor:
        """Inputs with K or V tokens[B, R, N, d]: x[B, R, M, d] @ K.T, or x[B, R, M, N] @ V.

        `valid` [B or 1, N] is False where no token is: padding, and slots of a cache that were not written yet.
        `queries` is how many of the tokens may be new in this call; by default M.

        Raises:
            BadInput: a cache holds other tokens than were written for the sample.
        """
        w = tokens if self.axis == "K" else tokens.transpose(-2, -1)
        exact = self.exact_product(x, w)
        if exact is None:
            return self._product(x, tokens, compaction(valid, len(tokens)), queries or x.shape[-2])
        if self.state.mode == "observe inputs" and self.causal:
            dense = compaction(valid, len(tokens))
            self.observe_range(tokens.detach() if dense is None else dense.gather(tokens.detach(), -2), dense)
        if self.state.mode == "observe tokens" and self.conditionable:
            self.watched.append(Watched.of(x.detach(), tokens.detach(), compaction(valid, len(tokens)), self.axis))
        return exact

    def observe_input(self, x: Tensor) -> None:
        """As in the base, of inputs as they are sent."""
        super().observe_input(x if self.conditioner is None else self.conditioner.to(x).inputs(x))

    def _product(self, x: Tensor, tokens: Tensor, dense: Compaction | None, queries: int) -> Tensor:
        turn = self.take_turn()
        if dense is not None:
            tokens = dense.gather(tokens, -2)
            x = x if self.axis == "K" else dense.gather(x, -1)
        given, came, mean = x, tokens.detach(), None
        conditioner = None if self.conditioner is None else self.conditioner.to(tokens)
        if conditioner is not None:
            tokens, mean = conditioner.tokens(tokens, dense)
            x = conditioner.inputs(x)
        w = tokens if self.axis == "K" else tokens.transpose(-2, -1)
        held, gain = self._written(tokens.detach(), came, dense, queries, turn)
        if gain is not None:
            x = x * gain
            w = w / torch.where(gain > 0, gain, 1.0)
        columns = dense.lengths if dense is not None and self.axis == "K" else None
        y = self.multiply(x, w, held, turn, queries=queries, columns=columns)
        y = y if conditioner is None else conditioner.outputs(y, given, mean)
        return y if dense is None or self.axis == "V" else dense.scatter(y, -1)

    def _written(
        self, tokens: Tensor, came: Tensor, dense: Compaction | None, queries: int, turn: tuple[int, ...]
    ) -> tuple[Folded | Programmed, Tensor | None]:
        """What the cells hold of tokens[B, R, n, d]; also the gain of each row, where rows have ranges of their own.

        Tokens are known again by what they were when they `came`, before conditioning rounded them.
        """
        w_range = self.range(tokens, dense)
        gain = None
        if self.axis == "V" and self.array.scale == "token":
            # A row's own range cannot be applied to column sums, so it is applied to the input of the row.
            common = self.w_range.to(tokens) if self.w_range is not None else w_range.amax(dim=-2, keepdim=True)
            gain = (w_range / torch.where(common > 0, common, 1.0)).transpose(-2, -1)
        else:
            common = w_range
        streams = self._streams(tokens, dense, turn)
        if not self._remembers():
            self.memory = None
            return self._write(tokens, w_range, common, streams), gain
        if self.causal and queries >= tokens.shape[-2]:
            self.memory = None  # a new text, even if it is the same
        elif self.memory is not None and self.memory.speaks_of(came, streams, self._conditions()):
            streams = self.memory.ring(came, streams, queries)
        held = self._written_before(tokens, came, w_range, common, streams, queries)
        self.memory = Memory(self._conditions(), came.clone(), streams, held)
        return held, gain

    def _conditions(self) -> tuple[object, ...]:
        """What decides how a token is written, beside itself and its stream."""
        state = self.state
        return state.step, state.level, state.rounded, state.clip, self.clip, self.w_range, self.conditioner

    def _written_before(
        self,
        tokens: Tensor,
        came: Tensor,
        w_range: Tensor,
        common: Tensor,
        streams: SampleStreams,
        queries: int,
    ) -> Folded:
        """What the cells hold, where tokens that the memory knows are not written again."""
        memory = self.memory
        if memory is None or not memory.speaks_of(came, streams, self._conditions()):
            if memory is not None:
                memory.check_rows(came, streams, queries, self.name)
            written: Folded = self._write(tokens, w_range, common, streams)
            return written
        if not isinstance(streams, TokenStreams):
            if torch.equal(memory.tokens, came):
                return memory.held
            written = self._write(tokens, w_range, common, streams)
            return written
        overlap = memory.overlap(streams)
        overlap.check(memory.tokens, came, queries, self.name)
        new = overlap.new
        if new is None:
            return overlap.merged(memory.held, None, self.axis, own_units=self._own_range())
        part = new.gather(tokens, -2)
        ranges, commons = (new.gather(r, -2) if r.shape[-2] == tokens.shape[-2] > 1 else r for r in (w_range, common))
        written = self._write(part, ranges, commons, overlap.new_streams(streams))
        return overlap.merged(memory.held, written, self.axis, own_units=self._own_range())

    def _remembers(self) -> bool:
        """Whether tokens may come back from a cache, and what cells hold can be taken apart token by token.

        Faults belong to places, not to tokens, and reference columns to all of them.
        """
        apart = self.array.encoding == "differential" and not self.needs_cells and not faults.faulty(self.array.cell)
        return apart and (self.state.asked.cached or (self.causal and not torch.is_grad_enabled()))

    def _write(self, tokens: Tensor, w_range: Tensor, common: Tensor, streams: SampleStreams) -> Any:
        array, state = self.array, self.state
        codes = self.codes(tokens, w_range)
        if self.axis == "V":
            codes, common = codes.transpose(-2, -1), common.transpose(-2, -1)
        return self.hold(
            codes,
            w_range=common,
            stream=state.stream if writing.exact(self.written_array()) and streams.present is None else streams,
            fault_stream=state.stream.child("faults", self.fault_name),
            max_code=largest_code(self._clip, array),
            major="outputs" if self.axis == "K" else "inputs",
        )

    @property
    def _clip(self) -> Clips:
        return self.state.clip if self.clip == "model" else self.clip

    def codes(self, tokens: Tensor, w_range: Tensor) -> Tensor:
        """The codes [B, R, n, d] that are written for tokens[B, R, n, d], as they leave the conditioner."""
        array, rounded = self.array, self.state.rounded
        if self.conditioner is None:
            codes = encoding.quantise(tokens, array, w_range, rounded=rounded)
            return clip_heads(codes, self._clip, array, rounded=rounded)
        # Few codes may be left, so they are clipped before they are rounded.
        codes = encoding.quantise(tokens, array, w_range, rounded=False)
        codes = clip_heads(codes, self._clip, array, rounded=False)
        if not rounded:
            return codes
        if not self.conditioner.spec.unbiased:
            return codes.round_()
        table = unbiased_codes(array, TRADE, largest_code(self._clip, array))
        return quantise_unbiased(codes, array, codes.new_tensor(float(array.max_code)), table)

    def _streams(self, tokens: Tensor, dense: Compaction | None, turn: tuple[int, ...]) -> SampleStreams:
        """What the noise of tokens[B, R, n, d] belongs to: the sample, or each token by its number."""
        state = self.state
        chip = state.stream.child(self.name, *turn)
        exact = writing.exact(self.written_array())
        B = len(tokens)
        found = SampleStreams((chip,) * B) if exact else sample_streams(chip, B, state.asked.names)
        lengths = None if dense is None else dense.lengths
        if not self.causal:
            return SampleStreams(found.streams, lengths)
        n = tokens.shape[-2]
        numbers = state.asked.numbers
        if self.write == "left" and len(numbers) == len(tokens) and len(numbers[0]) == n:
            return TokenStreams(found.streams, numbers=numbers)
        lengths = lengths or (n,) * len(tokens)
        total = state.asked.written if len(state.asked.written) == len(tokens) else lengths
        first = [max(0, all_ - own) for all_, own in zip(total, lengths, strict=True)]
        numbers = tuple(
            tuple(start + place if place < own else -1 for place in range(n))
            for start, own in zip(first, lengths, strict=True)
        )
        return TokenStreams(found.streams, numbers=numbers)

    def range(self, tokens: Tensor, dense: Compaction | None) -> Tensor:
        """The range of tokens[B, R, n, d], of a shape that broadcasts against them."""
        if self.causal and self.w_range is not None and not self._own_range():
            return self.w_range.to(tokens)
        return self._share * _range_over(tokens.abs(), self._dims(), self.array.percentile, dense)

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

    def observe_range(self, tokens: Tensor, dense: Compaction | None) -> None:
        """Widen the range that is fixed for all tokens to what tokens[B, R, n, d] need."""
        if self.conditioner is not None:
            tokens, _ = self.conditioner.to(tokens).tokens(tokens, dense)
        dims = self._dims() if self.array.scale != "token" else (-2, -1)
        dims = (-2, -1) if self.array.scale == "column" and self.axis == "K" else dims
        seen = self._share * _range_over(tokens.abs(), dims, self.array.percentile, dense).amax(dim=0, keepdim=True)
        self.w_range = seen if self.w_range is None else torch.maximum(self.w_range, seen)


def _range_over(magnitude: Tensor, dims: tuple[int, ...], percent: float, dense: Compaction | None) -> Tensor:
    """`encoding.magnitude_range` of magnitudes [B, R, n, d], of which only the tokens that are written count."""
    if percent >= 100 or dense is None or -2 not in dims:
        return encoding.magnitude_range(magnitude, dims, percent)
    rows = zip(magnitude.unbind(0), dense.lengths, strict=True)
    return torch.stack([encoding.magnitude_range(row[:, : max(1, n)], dims, percent) for row, n in rows])
