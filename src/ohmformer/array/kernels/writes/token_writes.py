"""Tokens of K or V that a compiled loop writes in one call, with all that is the same for all of them found before.

Shapes: B samples, R heads, N tokens, d features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohmformer.array import encoding, event_counter
from ohmformer.array.gaussian_writes.moments import gaussian_pairs
from ohmformer.array.kernels.input_codes import LARGEST
from ohmformer.array.kernels.read_variance import variance_of_digits
from ohmformer.array.kernels.writes import cell_writes
from ohmformer.array.spec import Crossbar
from ohmformer.array.writing import one_sided
from ohmformer.device import noise
from ohmformer.streams import SampleStreams, Stream, TokenStreams


@dataclass(frozen=True)
class TokenWrites:
    """How an array writes tokens whose codes are rounded, and not clipped.

    Attributes:
        slices: of each value, copies included.
        settings: what the loop takes of the array: the largest code, tables, lowest and highest digit, copies, the
            variance of reads, and whether both halves of a pair have noise.
        variances: True if variances of reads are needed.
    """

    slices: int
    settings: tuple[Any, ...]
    variances: bool

    @staticmethod
    def of(array: Crossbar, *, read_noise: bool) -> TokenWrites | None:
        """How an array writes tokens; None if the loop does not support it, see `cell_writes.fusible`.

        Args:
            array: the hardware.
            read_noise: compute the variances of reads, too.
        """
        if noise.silent(array.aged_cell) or not gaussian_pairs(array) or array.cell.uneven:
            return None
        coefficients = variance_of_digits(array)
        if array.max_code > LARGEST or (read_noise and coefficients is None):
            return None
        variances, slices = read_noise and not noise.exact_reads(array.cell), array.slices()
        tables = cell_writes.tables_of(array, slices)
        reads = coefficients if variances and coefficients is not None else cell_writes.NO_READS
        numbers = float(array.max_code), *tables, float(array.redundancy), *reads, not one_sided(array)
        return TokenWrites(slices, numbers, variances)

    def write(
        self, tokens: Tensor, streams: SampleStreams, ranges: Tensor | None, *, by_head: bool
    ) -> tuple[Tensor, Tensor | None, Tensor] | None:
        """What the cells of tokens hold together, with the random numbers of `write_folded`.

        Args:
            tokens: [B, R, N, d] in float32 on the CPU.
            streams: keys of the write noise.
            ranges: the values of the largest code, [B or 1, R or 1, 1, 1]; None for the largest magnitudes.
            by_head: in that case, True if each head has a range of its own, False for one of each sample.

        Returns:
            Values [B, R, N, d], the variance of one read of them (None without read noise), and the values of one code
            [B, R, 1, 1]; or None if these streams are not supported, or cell writes are counted.

        Raises:
            BadInput: a value or a range is NaN or infinite, or a range is negative.
        """
        from ohmformer.array.kernels.writes import token_writes_compiled

        given = _arguments(tokens, streams, ranges, by_head=by_head)
        if given is None:
            return None
        tokens, units, arguments = given
        held = tokens.new_empty(tokens.shape)
        variance = tokens.new_empty(tokens.shape) if self.variances else None
        at = held.data_ptr(), 0 if variance is None else variance.data_ptr()
        if token_writes_compiled.write(*at, *arguments, *self.settings):
            raise encoding.unusable("a matrix to be programmed", torch.ones(()) if ranges is None else ranges)
        return held, variance, units

    def of_single_tokens(self, ranges: Tensor, streams: tuple[Stream, ...]) -> CompiledTokens | None:
        """How single tokens with these ranges [B or 1, R or 1, 1, 1] are written; None with variances of reads."""
        if self.variances:
            return None
        keys = np.zeros((len(streams), 2), np.int64)
        keys[:, 0] = [stream.child("cell", "write", "token").seed for stream in streams]
        return CompiledTokens(self, ranges, ranges.detach()[:, :, 0, 0].numpy().copy(), keys)

    def digits(
        self, tokens: Tensor, streams: SampleStreams, ranges: Tensor | None, *, by_head: bool
    ) -> tuple[Tensor, Tensor] | None:
        """The digits [2, S, B, R, N, d] that cells of tokens hold, with the random numbers of `crossbar.write`.

        Args, exceptions and the values of one code, which are returned, too, are those of `write`.
        """
        from ohmformer.array.kernels.writes import token_writes_compiled

        given = _arguments(tokens, streams, ranges, by_head=by_head)
        if given is None:
            return None
        tokens, units, arguments = given
        held = tokens.new_empty(2, self.slices, *tokens.shape)
        top, tables, low, high, *_, pairs = self.settings
        if token_writes_compiled.write_digits(held.data_ptr(), *arguments, top, tables, low, high, pairs):
            raise encoding.unusable("a matrix to be programmed", torch.ones(()) if ranges is None else ranges)
        return held, units


@dataclass(frozen=True, eq=False)
class CompiledTokens:
    """Single tokens, written one after the other with the numbers of `TokenWrites.write`.

    Attributes:
        writes: how they are written.
        ranges: the values of the largest code.
        by_head: the same [B or 1, R or 1].
        keys: [B, 2] the seed of each sample, and the number of its token.
    """

    writes: TokenWrites
    ranges: Tensor
    by_head: Any
    keys: Any

    def __call__(self, tokens: Tensor, numbers: tuple[int, ...]) -> Tensor:
        """What the cells of tokens [B, R, 1, d] with these numbers hold, in values.

        Raises:
            BadInput: a value is NaN or infinite.
        """
        from ohmformer.array.kernels.writes import token_writes_compiled

        B, R, _, d = tokens.shape
        tokens = tokens if tokens.stride(3) == 1 else tokens.contiguous()
        self.keys[:, 1] = numbers
        held, units = tokens.new_empty(B, R, 1, d), np.empty((B, R), np.float32)
        units[...] = self.by_head
        given = tokens.data_ptr(), tokens.stride()[:3], (R, 1, d), units, True, False, self.keys
        if token_writes_compiled.write(held.data_ptr(), 0, *given, *self.writes.settings):
            raise encoding.unusable("a matrix to be programmed", self.ranges)
        return held


def _arguments(
    tokens: Tensor, streams: SampleStreams, ranges: Tensor | None, *, by_head: bool
) -> tuple[Tensor, Tensor, tuple[Any, ...]] | None:
    """Tokens as a loop takes them, the memory of the values of one code, and what the loop takes; else None."""
    B, R, N, d = tokens.shape
    keys = _keys(streams, B, N)
    if keys is None or event_counter.current() is not None:
        return None
    tokens = tokens if tokens.stride(3) == 1 else tokens.contiguous()
    units = tokens.new_empty(B, R, 1, 1)
    if ranges is not None:
        units.copy_(ranges)
    by_row = units.detach().view(B, R).numpy()
    return tokens, units, (tokens.data_ptr(), tokens.stride()[:3], (R, N, d), by_row, ranges is not None, by_head, keys)


def _keys(streams: SampleStreams, B: int, N: int) -> Any:
    """The seed of each key of write noise, and its token [K, 2]; None if places without a token are told otherwise."""
    if type(streams) is TokenStreams:
        if streams.growing or len(streams.numbers) != B or any(len(row) != N for row in streams.numbers):
            return None
        keys = np.empty((B, N, 2), np.int64)
        for b, stream in enumerate(streams.streams):
            keys[b, :, 0] = stream.child("cell", "write", "token").seed
            keys[b, :, 1] = streams.numbers[b]
        return keys.reshape(B * N, 2)
    if type(streams) is not SampleStreams or streams.lengths is not None or len(streams.streams) != B:
        return None
    return np.array([(stream.child("cell", "write").seed, 0) for stream in streams.streams], np.int64)
