"""K and V on crossbars: written for every input, with fresh noise; with a cache, each token once.

Shapes: B samples, R heads, N slots in which tokens come, n places at which they are written, d features, M inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ohmformer.array import writing
from ohmformer.array.aging.unaged import Unaged, write_unaged
from ohmformer.array.codes.codec import Codec
from ohmformer.array.folded import Folded
from ohmformer.array.multiply import reads_may_follow_tokens
from ohmformer.array.peripherals.spec import draws_for_reads, mismatched
from ohmformer.array.spec import Crossbar
from ohmformer.mitigation.spec import Clip, Conditioning
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.clipping import soft_clips
from ohmformer.nn.operands.digital_tokens import DigitalTokens, TokenCount, divide
from ohmformer.nn.operands.kv_ages import TokenAges, has_factor
from ohmformer.nn.operands.kv_aging import CellState, product_by_age
from ohmformer.nn.operands.kv_cache import WrittenTokens, split, streams_from
from ohmformer.nn.operands.kv_tokens import KVTokens, percentile_range, shared_axes, to_write, token_has_range
from ohmformer.nn.operands.kv_transform import TRADE, Conditioner
from ohmformer.nn.operands.observation import Observation
from ohmformer.nn.operands.quick.appended import appended_product, next_token
from ohmformer.nn.operands.quick.plan import plan_of
from ohmformer.nn.operands.quick.tokens import token_product, tokens_in_cells
from ohmformer.nn.operands.read_streams import read_streams
from ohmformer.nn.operands.token_numbers import Numbers
from ohmformer.nn.operands.unpad import Unpadding, place_tokens, unpad
from ohmformer.nn.shared.state import Use
from ohmformer.schema import replace as replace_field
from ohmformer.streams import SampleStreams, TokenStreams, sample_streams


@dataclass(eq=False)
class KVOperand(Operand):
    """K or V, written at run time.

    Attributes:
        fault_name: name of the arrays that hold it; layers with the same name share arrays, and thus faults.
        axis: "K" (tokens are outputs) or "V" (tokens are inputs).
        write: which factor of the product is written: "right" for K or V; "left" for Q in the product Q K^T.
        causal: tokens may come one by one, since no query sees later ones, or since queries are written. Each token
            draws the noise of its number, and ranges over several tokens are fixed by calibration.
        memristive: True if its cells are memristive, so that mitigation of K and V applies to them.
        clip: "model" takes that of the model; a tuple has one for each head.
        w_range: the calibrated range of a causal operand, [1, R or 1, 1, d or 1].
        conditioner: what is done to tokens before they are written, and undone behind the product.
        ages: when its tokens are written and read; None if age does not matter, or is that of the array.
        plain: the array without a conditioner.
        plain_clip: the clip that rules set, without a calibration.
        watched: what calibration has observed.
        watched_row: the row of a batch of which the mode `observe inputs` keeps tokens in `watched`; None for no row.
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
    ages: TokenAges | None = None
    plain: Crossbar = field(init=False)
    plain_clip: Literal["model"] | Clip | tuple[Clip, ...] = field(init=False)
    watched: list[Observation] = field(default_factory=list, repr=False)
    watched_row: int | None = None

    def __post_init__(self) -> None:
        """Keep array and clip as they are without calibration."""
        self.plain, self.plain_clip = self.array, self.clip

    @property
    def simulated(self) -> bool:
        """True if products are now those of cells, not exact."""
        return super().simulated and self.state.mode != "run weights"

    @property
    def conditionable(self) -> bool:
        """True if tokens of K or V are written, and into cells that need mitigation."""
        return self.write == "right" and self.memristive

    def condition(self, conditioner: Conditioner | None) -> None:
        """Set another conditioning, or none, and forget all calibrated ranges.

        Raises:
            BadInput: the array does not support it.
        """
        self.array = self.plain if conditioner is None else conditioner.spec.on(self.plain)
        self.conditioner, self.x_range, self.w_range = conditioner, None, None
        self.state.threads.call.written.pop(self.name, None)

    def product(self, x: Tensor, tokens: Tensor, valid: Tensor | None = None, new: int | None = None) -> Tensor:
        """Multiply inputs by K or V: x[B, R, M, d] @ K.T, or x[B, R, M, N] @ V.

        Args:
            x: inputs.
            tokens: K or V [B, R, N, d].
            valid: [B or 1, N] False where a slot holds no token: padding, or a slot of a cache that was never written.
            new: how many of the tokens may be new in this call; by default M.

        Raises:
            BadInput: a value or a range is NaN or infinite, or the batch has another number of samples than names.
        """
        use, new = self.state.use(self.name, self.calls_per_forward), new or x.shape[-2]
        if valid is None:
            quick = appended_product if self.causal else token_product
            if (y := quick(self, x, tokens, new, use)) is not None:
                return y
        if not self.simulated or self.state.mode == "ideal":
            return self._exact_product(x, tokens, valid, new, use)
        unpadding, numbers = self._places(tokens, valid, use)
        if self.conditioner is None or not self.conditioner.spec.most_digital_tokens:
            return self._product_of_cells(x, tokens, unpadding, numbers, new, use)
        digital = self._divided(self.conditioner.spec, x, tokens, unpadding, numbers, new, use)
        self._count(digital)
        y = digital.product(x, tokens, self.axis)
        if digital.all_digital:
            return y
        x = x if self.axis == "K" else digital.inputs(x)
        from_cells = self._product_of_cells(x, tokens, digital.in_cells, digital.numbers, new, use)
        return digital.joined(from_cells, y, self.axis)

    def _product_of_cells(
        self, x: Tensor, tokens: Tensor, unpadding: Unpadding | None, numbers: Numbers, new: int, use: Use
    ) -> Tensor:
        """`product` of the tokens that cells hold: without padding, conditioned, scaled, written, multiplied, undone.

        Args:
            x: as in `product`.
            tokens: as in `product`.
            unpadding: the places of the tokens; None if every slot is one.
            numbers: for each sample, the number of the token at each place; empty if tokens do not come one by one.
            new: as in `product`.
            use: the use of the operand.
        """
        is_k, array = self.axis == "K", self.written_array(use)
        if unpadding is not None:
            tokens = unpadding.gather(tokens, -2)
            x = x if is_k else unpadding.gather(x, -1)
        conditioner = None if self.conditioner is None else self.conditioner.to(tokens)
        sent = x if conditioner is None else conditioner.inputs(x)
        streams = self._write_streams(len(tokens), unpadding, numbers, use, array)
        before = self._written_before(tokens, streams, unpadding, new, use)
        if before is None:
            batch, w, mean = self._batch(tokens, conditioner, streams, unpadding)
            cells = self._cells(batch, tokens.shape[-2] if self.write == "left" else new, array, use)
            gain = batch.gain
        else:
            assert isinstance(streams, TokenStreams)
            n = before.tokens.shape[-2]
            batch, w, mean = self._batch(tokens[:, :, n:], conditioner, streams_from(streams, n), None)
            cells, gain = self._appended(before, batch, streams, array, use)
        sent = sent if gain is None else sent * gain
        reads = self.read_streams(sent.shape, unpadding, new, use) if self.noisy_reads else None
        if self.ages is not None:
            y = product_by_age(self, sent, w, cells, batch, new, reads, array, use)
        else:
            assert not isinstance(cells, Unaged)
            y = self.multiply(sent, w, cells, reads)
        y = y if conditioner is None else conditioner.outputs(y, x, mean)
        return y if unpadding is None or not is_k else unpadding.scatter(y, -1)

    def _batch(
        self, tokens: Tensor, conditioner: Conditioner | None, streams: SampleStreams, unpadding: Unpadding | None
    ) -> tuple[KVTokens, Tensor, Tensor | None]:
        """Tokens as they are written, the matrix [..., O, I] of a product with them, and the mean that is taken off."""
        values, mean = (tokens, None) if conditioner is None else conditioner.values(tokens, unpadding)
        range_of_codes, own_scale = self.range(values.detach(), unpadding), self.array.scale == "token"
        batch, w = to_write(tokens, values, streams, range_of_codes, self.w_range, self.axis, own_scale=own_scale)
        return batch, w, mean

    def _written_before(
        self, tokens: Tensor, streams: SampleStreams, unpadding: Unpadding | None, new: int, use: Use
    ) -> WrittenTokens | None:
        """What cells hold of all tokens [B, R, n, d] but the last `new`, if these can be written alone; else None.

        Then no mean or range is that of all tokens, and nothing is done to those that cells hold.
        """
        before = self.state.threads.call.written.get(self.name)
        if before is None or unpadding is not None or self.write == "left" or torch.is_grad_enabled():
            return None
        conditioner = self.conditioner
        mean_of_all = conditioner is not None and conditioner.spec.mean and conditioner.mean is None
        range_of_all = self.w_range is None and not (self.axis == "K" and token_has_range(self.array, self.axis))
        if mean_of_all or range_of_all or self.ages is not None or not self.separable():
            return None
        return before if before.goes_on(tokens, streams, new, self._settings(use)) else None

    def _appended(
        self, before: WrittenTokens, batch: KVTokens, streams: TokenStreams, array: Crossbar, use: Use
    ) -> tuple[Folded, Tensor | None]:
        """Write tokens behind those that cells hold; what cells hold of all, and the factors of their inputs."""
        call, written = self.state.threads.call, self.write_tokens(batch, array, use)
        assert isinstance(written, Folded)
        if not self._draws_nothing(array):
            call.moved[self.name] = frozenset()
        held = before.appended(batch, streams, written, self.axis)
        held = call.written[self.name] = replace(held, following=next_token(self, held, batch, use))
        assert isinstance(held.cells, Folded)
        return held.cells, held.gain

    def _settings(self, use: Use) -> tuple[object, ...]:
        """Everything beside tokens and their streams that decides how they are written."""
        state = self.state
        return (use.step, state.level, state.rounded, state.clip, self.clip, self.w_range, self.conditioner)

    def _places(self, tokens: Tensor, valid: Tensor | None, use: Use) -> tuple[Unpadding | None, Numbers]:
        """The places of tokens, and their numbers if they may come one by one; see `place_tokens`."""
        if not self.causal:
            return unpad(valid, len(tokens)), ()
        by_number, queries = self._places_matter(), self.write == "left"
        return place_tokens(tokens, valid, use.info, by_number=by_number, queries_written=queries)

    def _divided(
        self,
        spec: Conditioning,
        x: Tensor,
        tokens: Tensor,
        unpadding: Unpadding | None,
        numbers: Numbers,
        new: int,
        use: Use,
    ) -> DigitalTokens:
        """The tokens of a call, divided into those of cells and those that are digital."""
        by_number, heads = self.causal and self._places_matter(), x.shape[-2] // new
        return divide(spec, unpadding, numbers, tokens[:, 0, :, 0], use.info, new=new, heads=heads, by_number=by_number)

    def _count(self, digital: DigitalTokens) -> None:
        """Count the tokens of a call, and forget what cells hold if they hold no token of it."""
        call = self.state.threads.call
        if self.state.mode == "run":
            call.token_counts[self.name] = digital.count.plus(call.token_counts.get(self.name, TokenCount()))
        if digital.all_digital:
            call.written.pop(self.name, None)

    def _exact_product(self, x: Tensor, tokens: Tensor, valid: Tensor | None, new: int, use: Use) -> Tensor:
        """`product` of ideal cells, or of the model itself while calibration observes inputs and tokens."""
        mode, unpadding = self.state.mode, unpad(valid, len(tokens))
        if mode == "observe inputs":
            self._observe(x, tokens, valid, new, use)
            if self.watched_row is not None:
                observed = Observation.of(x.detach(), tokens.detach(), unpadding, self.axis)
                self.watched.append(observed.of_sample(self.watched_row))
        if mode == "observe tokens" and self.conditionable:
            self.watched.append(Observation.of(x.detach(), tokens.detach(), unpadding, self.axis))
        if mode != "ideal" or unpadding is None:
            return x @ (tokens.transpose(-2, -1) if self.axis == "K" else tokens)
        tokens = unpadding.gather(tokens, -2)  # only these are written
        if self.axis == "V":
            return unpadding.gather(x, -1) @ tokens
        return unpadding.scatter(x @ tokens.transpose(-2, -1), -1)

    def _observe(self, x: Tensor, tokens: Tensor, valid: Tensor | None, new: int, use: Use) -> None:
        """Widen the ranges to inputs and tokens that cells get.

        Tokens of the recent window count, too: they are written when they leave it.
        """
        unpadding = unpad(valid, len(tokens))
        if self.conditioner is not None:
            spec, places = self.conditioner.spec, self._places(tokens, valid, use)
            first = replace_field(spec, "last_tokens", 0)
            if spec.most_digital_tokens and self.axis == "V":
                x = self._divided(spec, x, tokens, *places, new, use).inputs(x)
            x = self.conditioner.to(x).inputs(x)
            if first.most_digital_tokens:
                unpadding = self._divided(first, x, tokens, *places, new, use).in_cells
        self.observe_input(x)
        if self.causal:
            seen = tokens.detach()
            self.observe_range(seen if unpadding is None else unpadding.gather(seen, -2), unpadding)

    def write_tokens(self, batch: KVTokens, array: Crossbar, use: Use) -> CellState:
        """Write tokens into cells."""
        return tokens_in_cells(self, batch, use) or self._written(batch, array, use)

    def _written(self, batch: KVTokens, array: Crossbar, use: Use) -> CellState:
        """`write_tokens` in the way of any kind of array."""
        values, code_range, column_range = batch.values, batch.code_range, batch.column_range
        if self.axis == "V":
            values, code_range, column_range = (t.transpose(-2, -1) for t in (values, code_range, column_range))
        # Converters that differ belong to all samples, which therefore have to be told from heads.
        alike = self._draws_nothing(array) and batch.streams.present is None and not mismatched(array)
        return self.write_function(array, use)(
            values,
            array,
            codec=self.codec,
            code_range=code_range,
            w_range=column_range,
            stream=use.stream if alike else batch.streams,
            fault_stream=use.stream.child("faults", self.fault_name),
            major="outputs" if self.axis == "K" else "inputs",
        )

    def write_function(self, array: Crossbar, use: Use) -> Callable[..., CellState]:
        """See `Operand`; cells that age are kept as they were written."""
        if self.ages is None or self._ages_by_factor(array):
            return super().write_function(array, use)
        return partial(write_unaged, drifts=self.ages.drifts)

    def _ages_by_factor(self, array: Crossbar) -> bool:
        """True if drift multiplies all values of a token by one factor, and nothing else depends on their age."""
        exact = not self.needs_cells and not self.noisy_reads
        return exact and self.ages is not None and has_factor(self.ages, array)

    def _draws_nothing(self, array: Crossbar) -> bool:
        """True if what cells hold when read is not random."""
        exact = plan_of(self).exact if array is self.array else writing.exact(array)
        return exact and (self.ages is None or self._ages_by_factor(array))

    def _cells(self, batch: KVTokens, new: int, array: Crossbar, use: Use) -> CellState:
        """Write the tokens of a call that cells do not hold yet, and return what the cells hold of all.

        The last `new` tokens of each sample come with the call: they are written in any case.
        """
        call = self.state.threads.call
        # Tokens may come back from a cache, where cells can be taken apart token by token.
        if not self.separable() or not (use.info.cached or (self.causal and not torch.is_grad_enabled())):
            cells = self.write_tokens(batch, array, use)
            call.written.pop(self.name, None)
            return cells
        settings = self._settings(use)
        parts = split(call.written.get(self.name), batch, new, settings)
        if parts.moved is not None and (self.ages is not None or not self._draws_nothing(array)):
            # Ages follow the numbers of tokens, but are those of every sample.
            call.moved[self.name] = parts.moved - {"sample"} if self._draws_nothing(array) else parts.moved
        written = None if parts.batch is None else self.write_tokens(parts.batch, array, use)
        cells = parts.merged(written, self.axis, token_ranges=token_has_range(self.array, self.axis))
        assert isinstance(cells, (Folded, Unaged))
        call.written[self.name] = WrittenTokens(settings, batch.tokens.clone(), batch.streams, cells, batch.gain)
        return cells

    def read_streams(self, shape: torch.Size, unpadding: Unpadding | None, new: int, use: Use) -> SampleStreams:
        """Keys of the read noise of inputs of a shape [B, R, M, d or n]; see `read_streams`."""
        lengths = None if unpadding is None else unpadding.lengths
        by_input = draws_for_reads(self.array) or not reads_may_follow_tokens(self.state.level)
        columns, inputs = (lengths, None) if self.axis == "K" else (None, lengths if by_input else None)
        how, exactly = (self.read_stream(use), shape, use.info, new), self.write == "left"
        return read_streams(*how, by_token=self.reads_by_token, columns=columns, inputs=inputs, exactly=exactly)

    def _write_streams(
        self, B: int, unpadding: Unpadding | None, numbers: Numbers, use: Use, array: Crossbar
    ) -> SampleStreams:
        """Keys of the write noise: one of each sample, or of each token by its number."""
        stream = use.stream.child(self.name, *use.call_index)
        streams = (stream,) * B if self._draws_nothing(array) else sample_streams(stream, B, use.info.names).streams
        if self.causal:
            return TokenStreams(streams, numbers=numbers)
        return SampleStreams(streams, None if unpadding is None else unpadding.lengths)

    def separable(self) -> bool:
        """True if what cells hold can be taken apart token by token, see `Plan`."""
        return plan_of(self).separable

    def _places_matter(self) -> bool:
        """True if a token's result depends on its place among the tokens of its sample."""
        noisy = self.noisy_reads and (self.axis == "K" or draws_for_reads(self.array))
        return noisy or not self.separable()

    @property
    def codec(self) -> Codec:
        """The codec that turns conditioned tokens into codes."""
        clips = soft_clips(self.state.clip if self.clip == "model" else self.clip, self.array)
        if self.conditioner is None:
            return Codec(self.array, clips, rounded=self.state.rounded)
        trade = TRADE if self.conditioner.spec.unbiased else None
        return Codec(self.array, clips, rounded=self.state.rounded, round_last=True, trade=trade)

    def range(self, values: Tensor, unpadding: Unpadding | None) -> Tensor:
        """The value of the largest code of conditioned tokens [B, R, n, d]; broadcasts against them."""
        if self.causal and self.w_range is not None and not token_has_range(self.array, self.axis):
            fixed = self.w_range.to(values)
            # Windows that are folded among the heads may be more, or fewer, than on the sample.
            return fixed if fixed.shape[1] in (1, values.shape[1]) else fixed.amax(dim=1, keepdim=True)
        axes = shared_axes(self.array, self.axis)
        found = percentile_range(values, axes, self.array.percentile, unpadding)
        return found if self.conditioner is None else self.conditioner.spec.range * found

    def observe_range(self, tokens: Tensor, unpadding: Unpadding | None) -> None:
        """Widen the calibrated range, which all tokens share, to that of tokens [B, R, n, d]."""
        values = tokens
        if self.conditioner is not None:
            values, _ = self.conditioner.to(tokens).values(tokens, unpadding)
        own = token_has_range(self.array, self.axis)
        axes = (-2, -1) if own else shared_axes(self.array, self.axis)
        seen = percentile_range(values, axes, self.array.percentile, unpadding).amax(dim=0, keepdim=True)
        seen = seen if self.conditioner is None else self.conditioner.spec.range * seen
        self.w_range = seen if self.w_range is None else torch.maximum(self.w_range, seen)
