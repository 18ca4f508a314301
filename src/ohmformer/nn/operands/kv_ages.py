"""The age of each token of K or V when it is read, from the times that a timeline states.

Shapes: B samples, M new queries of a head, n places at which tokens are written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ohmformer import units
from ohmformer.array.aging.unaged import one_factor, reads_age
from ohmformer.array.spec import Crossbar
from ohmformer.device import drift
from ohmformer.device.check import check_cell
from ohmformer.errors import BadInput, check_type, given, shown
from ohmformer.hardware.ages import Ages, OperandAges
from ohmformer.nn.operands.token_numbers import Numbers
from ohmformer.schema import replace


@dataclass(frozen=True, eq=False)
class ReadGroup:
    """Queries for which all tokens have the same ages.

    Attributes:
        places: their places among the new queries of a call; None for all queries.
        ages: [B or 1, n] age of each token when they read it [s], float64 on the CPU.
        refresh: for each sample (or for all), number of refreshes before they read.
        again: [B or 1, n] True for tokens that the last of these refreshes has written again.
        number: for each sample (or for all), number of the first query; -1 if queries are not numbered.
    """

    places: tuple[int, ...] | None
    ages: Tensor
    refresh: tuple[int, ...]
    again: Tensor
    number: tuple[int, ...]

    @property
    def refreshed(self) -> bool:
        """True if a refresh has written any of the tokens again."""
        return bool(self.again.any())


@dataclass(frozen=True, eq=False)
class TokenAges:
    """When the tokens of one operand are written and read.

    Attributes:
        uses: the times of each use of the operand in a forward pass.
        encoder: the age of a token that all queries read at about the same time, see `Ages`.
        longest: the longest age of any read [s].
        drifts: True if cells drift within the longest age.
    """

    uses: tuple[OperandAges, ...]
    encoder: Literal["mean", "longest"]
    longest: float
    drifts: bool

    def times(self, call_index: tuple[int, ...]) -> OperandAges:
        """The times of a use; `call_index` as in `Use`."""
        return self.uses[call_index[0] if call_index and len(self.uses) > 1 else 0]

    def groups(
        self, call_index: tuple[int, ...], queries: Numbers, keys: Numbers, *, holds_queries: bool = False
    ) -> Iterator[ReadGroup]:
        """The groups of queries of a call, in order: consecutive queries with the same ages are read together.

        Args:
            call_index: as in `Use`.
            queries: for each sample, the numbers of its M new queries; empty if they have none, as in an encoder.
            keys: for each sample, the number of the token at each place.
            holds_queries: True if the tokens are queries in place of keys.

        Raises:
            BadInput: a number is not in the timeline.
        """
        times, keys = self.times(call_index), _distinct(keys)
        if holds_queries:
            yield _group(None, [_own_ages(times, row) for row in keys])
        elif not queries:
            yield _group(None, [times.over_queries(row, self.encoder) for row in keys])
        else:
            yield from _groups_of_queries(times, queries, keys)


def _groups_of_queries(times: OperandAges, queries: Numbers, keys: Numbers) -> Iterator[ReadGroup]:
    """`TokenAges.groups` where queries have numbers."""
    queries = _distinct(queries)
    B = max(len(queries), len(keys))
    rows = [(queries[b % len(queries)], keys[b % len(keys)]) for b in range(B)]
    places: list[int] = []
    last: ReadGroup | None = None
    for place in range(len(queries[0])):
        number = tuple(asked[place] for asked, _ in rows)
        ages = [times.between([n], held)[0] for n, (_, held) in zip(number, rows, strict=True)]
        counts, again = zip(
            *(times.refreshes([n], held) for n, (_, held) in zip(number, rows, strict=True)), strict=True
        )
        refresh = tuple(int(count[0]) if n >= 0 else 0 for count, n in zip(counts, number, strict=True))
        written = [
            mask[0] & (n >= 0) & (np.asarray(held) >= 0) for mask, n, (_, held) in zip(again, number, rows, strict=True)
        ]
        group = _group((place,), ages, refresh, written, number)
        if last is not None and refresh == last.refresh and torch.equal(group.ages, last.ages):
            places.append(place)
            continue
        if last is not None:
            yield _with_places(last, places)
        last, places = group, [place]
    if last is not None:
        yield _with_places(last, places)


def _with_places(group: ReadGroup, places: list[int]) -> ReadGroup:
    return ReadGroup(tuple(places), group.ages, group.refresh, group.again, group.number)


def _group(
    places: tuple[int, ...] | None,
    ages: list[np.ndarray],
    refresh: tuple[int, ...] = (0,),
    again: list[np.ndarray] | None = None,
    number: tuple[int, ...] = (-1,),
) -> ReadGroup:
    stacked = torch.from_numpy(np.stack(ages))
    mask = torch.zeros_like(stacked, dtype=torch.bool) if again is None else torch.from_numpy(np.stack(again))
    return ReadGroup(places, stacked, refresh, mask, number)


def _distinct(numbers: Numbers) -> Numbers:
    """The numbers of one sample if all samples have the same ones."""
    return numbers[:1] if all(row == numbers[0] for row in numbers) else numbers


def _own_ages(times: OperandAges, queries: tuple[int, ...]) -> np.ndarray:
    """The age of each query in cells when it meets the keys [s].

    Raises:
        BadInput: the timeline is that of cells that hold keys.
    """
    ages: np.ndarray = np.array([times.between([n], [0 if n >= 0 else -1])[0, 0] for n in queries])
    if not np.isfinite(times.rewritten).all():
        raise BadInput(
            f"ages: {times.name}: queries are in cells here, but the timeline writes keys; take one of this hardware"
        )
    return ages


def token_ages(
    name: str, array: Crossbar, ages: Ages, *, causal: bool, holds_queries: bool, calls_per_forward: int
) -> TokenAges | None:
    """The times of one operand among those of a timeline; None if what its cells hold does not depend on age.

    Args:
        name: of the operand.
        array: the crossbars that hold it.
        ages: the times of all operands.
        causal: True if queries see no later keys.
        holds_queries: True if the cells hold queries in place of keys.
        calls_per_forward: number of uses in a forward pass.

    Raises:
        BadInput: the timeline has no times of this operand, or the array cannot follow ages token by token.
    """
    if array.age:
        raise BadInput(
            f"ages: {name}: its array has age = {units.show(array.age, 's')} for all tokens; leave out that age, or "
            "the ages of a timeline"
        )
    uses = tuple(entry for entry in ages.operands if entry.name == name)
    if len(uses) != calls_per_forward:
        known = f"{len(uses)} entries" if uses else f"{len(ages.operands)} others"
        raise BadInput(
            f"ages: the timeline has {known} for {shown(name)}, which has {calls_per_forward} uses in a pass; take the "
            "timeline of the same model on the same hardware"
        )
    for times in uses:
        _check_times(times, causal=causal, holds_queries=holds_queries)
    longest = max(_longest(times) for times in uses)
    check_cell(array.cell, longest)
    drifts = drift.drifts(array.cell, longest)
    timed = array.cell.at_age(longest).write_noise != array.cell.at_age(0.0).write_noise
    if not drifts and not timed and not reads_age(array.cell, longest):
        return None
    where = f"ages: {name}:"
    if timed:
        raise BadInput(
            f"{where} write_noise has other parameters {units.show(longest, 's')} after the write than just after it, "
            "which is not simulated token by token; leave out its times, or set the array's age to one number"
        )
    return TokenAges(uses, ages.encoder, longest, drifts)


def has_factor(token_times: TokenAges, array: Crossbar) -> bool:
    """True if drift multiplies all values of a token by one factor, so that it may act on inputs or results."""
    return token_times.drifts and one_factor(array, torch.zeros(1, dtype=torch.float64)) is not None


def _longest(times: OperandAges) -> float:
    """The longest age of any read of an operand [s], also where cells hold queries."""
    latest = np.maximum(times.written.min(), times.rewritten)
    return float(np.max(np.where(np.isfinite(latest), times.read - latest, 0.0), initial=0.0))


def _check_times(times: OperandAges, *, causal: bool, holds_queries: bool) -> None:
    """Refuse times that are no timeline of the operand.

    Raises:
        BadInput: arrays of times do not fit, hold NaN, or are those of another kind of attention.
    """
    check_type("ages", "operand", times, OperandAges, "an OperandAges, as a timeline makes it")
    shapes = [np.shape(times.written), np.shape(times.read), np.shape(times.rewritten)]
    if any(len(shape) != 1 or shape[0] < 1 for shape in shapes) or shapes[1] != shapes[2]:
        raise BadInput(f"ages: {times.name}: times have shapes {shapes}; give one of each key, and two of each query")
    if not np.isfinite(times.read).all() or np.isnan(times.written).any() or np.isnan(times.rewritten).any():
        raise BadInput(f"ages: {times.name}: holds NaN or an infinite time of a read; give times in seconds")
    if causal != times.causal and not times.across and not holds_queries:
        kinds = ("causal", "not causal") if causal else ("not causal", "causal")
        raise BadInput(f"ages: {times.name}: is {kinds[0]}, but {kinds[1]} in the timeline; take one of the same model")


def check_ages(ages: object) -> Ages | float | None:
    """The argument `ages` of `convert`: times of a timeline, or one age of all tokens [s].

    Raises:
        BadInput: it is anything else, or an age below zero.
    """
    if ages is None or isinstance(ages, Ages):
        return ages
    remedy = "what Timeline.ages() or Served.ages() returned, a number of seconds, or None"
    if isinstance(ages, bool) or not isinstance(ages, (int, float)):
        raise BadInput(f"convert: ages is {given(ages)}; give {remedy}")
    if not 0 <= ages < math.inf:
        raise BadInput(f"convert: ages = {shown(ages)}: must be 0 or more, and finite; correct it")
    return float(ages)


def at_one_age(name: str, array: Crossbar, age: float) -> Crossbar:
    """The array of an operand, if all tokens have one age [s] when they are read.

    Raises:
        BadInput: the array has another age, or does not support this one.
    """
    if array.age not in (0.0, age):
        raise BadInput(
            f"ages: {name}: its array has age = {units.show(array.age, 's')}, and all tokens {units.show(age, 's')}; "
            "leave out one of them"
        )
    return replace(array, "age", age)
