"""Products with K or V whose cells age: queries that find the same ages are read together.

Shapes: B samples, R heads, M inputs (`new` queries of one head after those of another), n written tokens, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ohmformer.array.aging.unaged import Unaged, one_factor
from ohmformer.array.folded import Folded, fold
from ohmformer.array.multiply import has_read_noise
from ohmformer.array.peripherals.read_keys import QueryStreams
from ohmformer.array.programmed import Programmed
from ohmformer.array.spec import Crossbar
from ohmformer.nn.operands.base import Operand
from ohmformer.nn.operands.kv_ages import ReadGroup
from ohmformer.nn.operands.kv_tokens import KVTokens
from ohmformer.nn.operands.read_streams import numbers_of_queries
from ohmformer.nn.operands.token_numbers import Numbers
from ohmformer.nn.shared.state import Use
from ohmformer.streams import PaddedStreams, SampleStreams, TokenStreams

if TYPE_CHECKING:
    from ohmformer.nn.operands.kv import KVOperand

CellState = Folded | Programmed | Unaged
"""What the cells of K or V hold; the cells of `Unaged` are kept as they were written, and aged when they are read."""


@dataclass(frozen=True, eq=False)
class AgedRead:
    """One read of aging cells, by all queries of a call.

    Attributes:
        operand: whose cells they are.
        array: the hardware, as it was written.
        axis: "K" (tokens are outputs) or "V" (tokens are inputs).
        new: number of new queries of a head.
        queries: for each sample (or for all), the numbers of its new queries; empty if they have none.
        reads: keys of the read noise; None if reads are exact.
        rewrite: function of the number of the last refresh of each sample (or of all), which returns what cells hold if
            it has written all tokens again.
    """

    operand: Operand
    array: Crossbar
    axis: str
    new: int
    queries: Numbers
    reads: SampleStreams | None
    rewrite: Callable[[tuple[int, ...]], CellState]

    def product(self, x: Tensor, w: Tensor, written: CellState, groups: Iterable[ReadGroup]) -> Tensor:
        """Multiply inputs by what the cells hold when each query reads them.

        Args:
            x: inputs [B, R, M, d] for K, or [B, R, M, n] for V.
            w: the matrix [B, R, O, I] that was written; gradients flow to it.
            written: the cells as they were written.
            groups: the groups of queries, which together have all of them.

        Returns:
            [B, R, M, O].
        """
        found: list[tuple[list[int], Tensor]] = []
        rewritten: dict[tuple[int, ...], CellState] = {}
        pending: list[ReadGroup] = []
        by_factor = isinstance(written, Folded) and not (self.axis == "V" and _needs_gradients(x, w))
        for group in groups:
            if by_factor and not group.refreshed:
                pending.append(group)
                continue
            cells = written
            if group.refreshed:
                if group.refresh not in rewritten:
                    rewritten = {group.refresh: self.rewrite(group.refresh)}
                cells = self._where(group.again, rewritten[group.refresh], written)
            rows = self._rows(group, x.shape[-2])
            part = x if group.places is None else x[..., rows, :]
            found.append((rows, self.operand.multiply(part, w, self._aged(cells, group), self._streams(group, rows))))
        if pending:
            assert isinstance(written, Folded)
            found.append(self._times_factors(x, w, written, pending))
        if len(found) == 1:
            return found[0][1]
        order = torch.tensor([row for rows, _ in found for row in rows], device=x.device).argsort()
        return torch.cat([y for _, y in found], dim=-2)[..., order, :]

    def _times_factors(
        self, x: Tensor, w: Tensor, written: Folded, groups: list[ReadGroup]
    ) -> tuple[list[int], Tensor]:
        """The rows of groups and their results, if drift multiplies all values of a token by one factor."""
        heads = x.shape[-2] // self.new
        places = [place for group in groups for place in (group.places or range(self.new))]
        factors = [
            self._factor(group.ages, x)[:, None].expand(-1, len(group.places or range(self.new)), -1)
            for group in groups
        ]
        samples = max(len(factor) for factor in factors)
        factor = torch.cat([each.expand(samples, -1, -1) for each in factors], dim=1)  # [B or 1, places, n]
        factor = factor[:, None].repeat(1, 1, heads, 1)
        rows = [head * self.new + place for head in range(heads) for place in places]
        part = x if rows == list(range(x.shape[-2])) else x[..., rows, :]
        reads = None if self.reads is None else _of_rows(self.reads, rows)
        if self.axis == "K":
            return rows, self.operand.multiply(part, w, written, reads) * factor
        return rows, self.operand.multiply(part, w, written, reads, shares=factor)

    def _factor(self, ages: Tensor, like: Tensor) -> Tensor:
        """The factors of tokens of these ages, in the dtype and on the device of `like`."""
        factor = one_factor(self.array, ages)
        assert factor is not None
        return factor.to(like)

    def _aged(self, cells: CellState, group: ReadGroup) -> Folded | Programmed:
        """What cells hold when a group reads them."""
        ages = group.ages.unsqueeze(-1 if self.axis == "K" else -2)
        if isinstance(cells, Unaged):
            aged = cells.at(ages)
            level = self.operand.state.level
            return aged if self.operand.needs_cells else fold(aged, read_noise=has_read_noise(level))
        assert isinstance(cells, Folded)
        return replace(cells, values=cells.values * self._factor(ages, cells.values)[:, None])

    def _where(self, again: Tensor, rewritten: CellState, written: CellState) -> CellState:
        """The rewritten cells of tokens [B or 1, n] that are written again, and those that were written of others."""
        mask = again.unsqueeze(-1 if self.axis == "K" else -2)
        if isinstance(rewritten, Unaged):
            assert isinstance(written, Unaged)
            return rewritten.where(mask, written)
        assert isinstance(rewritten, Folded)
        assert isinstance(written, Folded)
        mask = mask[:, None].to(written.values.device)
        return replace(written, values=torch.where(mask, rewritten.values, written.values))

    def _rows(self, group: ReadGroup, M: int) -> list[int]:
        """The rows of x of the queries of a group, head by head."""
        if group.places is None:
            return list(range(M))
        return [head * self.new + place for head in range(M // self.new) for place in group.places]

    def _streams(self, group: ReadGroup, rows: list[int]) -> SampleStreams | None:
        """Keys of the read noise of a group: those of its tokens, or of the number and the head of each query."""
        reads = self.reads
        if reads is None or group.places is None:
            return reads
        if isinstance(reads, TokenStreams):
            return _of_rows(reads, rows)
        B = len(reads.streams)
        numbers = self.queries * B if len(self.queries) == 1 else self.queries
        queries = tuple(tuple((of_sample[row % self.new], row // self.new) for row in rows) for of_sample in numbers)
        columns, inputs = (reads.columns, reads.inputs) if isinstance(reads, PaddedStreams) else (None, None)
        return QueryStreams(reads.streams, columns=columns, inputs=inputs, queries=queries)


def product_by_age(
    operand: KVOperand,
    x: Tensor,
    w: Tensor,
    cells: CellState,
    batch: KVTokens,
    new: int,
    reads: SampleStreams | None,
    array: Crossbar,
    use: Use,
) -> Tensor:
    """Multiply inputs by cells of K or V that age: each query reads tokens at the ages that the timeline states.

    Args:
        operand: K or V.
        x: inputs [B, R, M, d] for K, or [B, R, M, n] for V.
        w: the matrix [B, R, O, I] that was written; gradients flow to it.
        cells: the cells as they were written.
        batch: the tokens that they hold.
        new: number of new queries of a head.
        reads: keys of the read noise; None if reads are exact.
        array: the hardware, as it was written.
        use: the use of the operand.
    """
    assert operand.ages is not None
    B, n = len(batch.tokens), batch.tokens.shape[-2]
    streams, across = batch.streams, operand.ages.times(use.call_index).across
    keys = streams.numbers if isinstance(streams, TokenStreams) else (tuple(range(n)),)
    numbered = operand.write == "right" and (operand.causal or across)
    queries = numbers_of_queries(B, new, use.info, operand.name, needed=operand.causal) if numbered else ()
    groups = operand.ages.groups(use.call_index, queries, keys, holds_queries=operand.write == "left")

    def rewrite(refresh: tuple[int, ...]) -> CellState:
        counts = refresh * B if len(refresh) == 1 else refresh
        keyed = tuple(s.child("refresh", r) if r else s for s, r in zip(streams.streams, counts, strict=True))
        return operand.write_tokens(replace(batch, streams=replace(streams, streams=keyed)), array, use)

    return AgedRead(operand, array, operand.axis, new, queries, reads, rewrite).product(x, w, cells, groups)


def _needs_gradients(x: Tensor, w: Tensor) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or w.requires_grad)


def _of_rows(reads: SampleStreams, rows: list[int]) -> SampleStreams:
    """The keys of some rows of the inputs."""
    if not isinstance(reads, TokenStreams):
        return reads
    return replace(reads, numbers=tuple(tuple(row[index] for index in rows) for row in reads.numbers))
