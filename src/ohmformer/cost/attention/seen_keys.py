"""How many keys each query sees, and what it costs by that number; sums over queries are closed forms.

A query sees all keys, or in causal attention those up to its own token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, inf
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ohmformer.cost.designs.per_design import beside, count_of, of_designs
from ohmformer.workload.spec import DynamicMatMul

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

AT_ONCE = 1_000_000
"""Number of queries whose times are computed together."""


@dataclass(frozen=True)
class KeysPerQuery:
    """The number of keys that each query of a head sees: query i, from 0, sees first + step i of them.

    Attributes:
        first: keys that the first query sees; a number below 0 counts as no key.
        queries: number of queries.
        step: 1 if attention is causal, 0 if all queries see the same keys.
    """

    first: int
    queries: int
    step: int = 0

    @classmethod
    def of(cls, op: DynamicMatMul) -> KeysPerQuery:
        """The keys that the queries of a product see. The last query of a causal product sees all keys."""
        if op.causal and 1 < op.queries <= op.tokens:
            return cls(op.tokens - op.queries + 1, op.queries, 1)
        return cls(op.tokens, op.queries)

    def beyond(self, keys: int) -> KeysPerQuery:
        """The numbers of keys that count if `keys` of those that a query sees do not."""
        return KeysPerQuery(self.first - keys, self.queries, self.step) if keys else self

    def blocks(self, size: int = 1, most: float = inf) -> int:
        """Sum over all queries of ceil(min(n, most) / size), where n is the number of keys that a query sees."""
        if not self.step:
            return self.queries * ceil(min(max(0, self.first), most) / size)
        return _blocks_up_to(self.first + self.queries - 1, size, most) - _blocks_up_to(self.first - 1, size, most)


def _blocks_up_to(last: int, size: int, most: float) -> int:
    """Sum of ceil(min(n, most) / size) for n from 1 to `last`."""
    if last <= 0:
        return 0
    rising = int(min(last, most))
    whole, rest = divmod(rising, size)
    total = size * whole * (whole + 1) // 2 + rest * (whole + 1)
    return total + (ceil(most / size) * (last - rising) if last > rising else 0)


class KeyTerm(NamedTuple):
    """A term that grows with the number n of keys that a query sees: each ceil(min(n - skipped, most) / size).

    It is 0 for n < skipped.

    Attributes:
        each: what each group of keys adds, in the unit of the cost.
        size: number of keys in a group.
        most: number of keys beyond which the term does not grow.
        skipped: number of the keys seen that do not count.
    """

    each: float
    size: float
    most: float
    skipped: int = 0

    def of(self, keys: int) -> float:
        """The term for a query that sees `keys` keys."""
        return self.each * ceil(min(max(0, keys - self.skipped), self.most) / self.size)


@dataclass(frozen=True)
class PerQueryCost:
    """What one query costs, such as time, operations or bytes, as a function of the number of keys that it sees.

    Attributes:
        constant: the part that does not depend on the keys.
        terms: the terms that grow with the number of keys; all parts are added up.
    """

    constant: float = 0.0
    terms: tuple[KeyTerm, ...] = ()

    def total(self, seen: KeysPerQuery) -> float:
        """The cost of all queries together."""
        parts = (term.each * seen.beyond(term.skipped).blocks(int(term.size), term.most) for term in self.terms)
        return sum(parts, self.constant * seen.queries)

    def of(self, keys: int) -> float:
        """The cost of a query that sees `keys` keys."""
        return self.constant + sum(term.of(keys) for term in self.terms)

    def at(self, keys: Array) -> Array:
        """The cost of each of Q queries, by the number of keys that it sees: [Q], or [N, Q] for N designs."""
        found: Array = np.zeros(keys.shape) + beside(self.constant, 1)
        for term in self.terms:
            counted = np.maximum(keys - term.skipped, 0.0) if term.skipped else keys
            found = found + beside(term.each, 1) * np.ceil(np.minimum(counted, term.most) / term.size)
        return found

    def beyond(self, keys: int) -> PerQueryCost:
        """The cost if `keys` more of the keys that a query sees do not count in its terms."""
        if not keys:
            return self
        return PerQueryCost(self.constant, tuple(term._replace(skipped=keys + term.skipped) for term in self.terms))

    def __add__(self, other: PerQueryCost) -> PerQueryCost:
        return PerQueryCost(self.constant + other.constant, self.terms + other.terms)

    def times(self, factor: float) -> PerQueryCost:
        """The cost, multiplied by a factor."""
        scaled = tuple(KeyTerm(term.each * factor, *term[1:]) for term in self.terms)
        return PerQueryCost(self.constant * factor, scaled)


@dataclass(frozen=True)
class KeyTimes:
    """Times of queries one after another that depend on the keys that they see.

    Attributes:
        seen: the keys.
        parts: what works at the same time for a query, as time of each [s]; the slowest one counts.
    """

    seen: KeysPerQuery
    parts: tuple[PerQueryCost, ...]

    @cached_property
    def total(self) -> float:
        """Time of all queries [s]."""
        return self.time(0, self.seen.queries)

    def time(self, first: int, count: int) -> float:
        """Time of `count` queries from query `first` on [s]."""
        if len(self.parts) == 1 and count == self.seen.queries:
            return self.parts[0].total(self.seen)
        step = max(1, AT_ONCE // self.designs)
        starts = range(first, first + count, step)
        return of_designs(sum(self._times(start, min(step, first + count - start)).sum(axis=-1) for start in starts))

    @cached_property
    def designs(self) -> int:
        """Number of designs whose times are computed together."""
        numbers = (number for part in self.parts for number in (part.constant, *(term.each for term in part.terms)))
        return max(map(count_of, numbers))

    def by_block(self, size: int) -> Array:
        """Time of each of B blocks of `size` queries [s]: [B], or [N, B] for N designs. The last may be smaller."""
        found = []
        step = max(1, AT_ONCE // (size * self.designs)) * size
        for start in range(0, self.seen.queries, step):
            count = min(step, self.seen.queries - start)
            found.append(np.add.reduceat(self._times(start, count), np.arange(0, count, size), axis=-1))
        return np.concatenate(found, axis=-1)

    def by_blocks(self, sizes: IntArray, places: IntArray | None) -> Array:
        """`by_block` for designs with blocks of other sizes.

        Args:
            sizes: queries per block of each of D designs [D].
            places: for each design, its place among those that were priced at once [D]; None if all have the same
                times.

        Returns:
            [B, D], where B is the largest number of blocks; designs with fewer have zeros before their first [s].
        """
        queries, designs = self.seen.queries, len(sizes)
        counts = -(-queries // sizes)
        found = np.zeros((designs, int(counts.max())))
        if queries * max(self.designs, designs) > AT_ONCE:
            for size in set(sizes.tolist()):
                chosen, times = np.flatnonzero(sizes == size), self.by_block(size)
                rows = times if times.ndim == 1 or places is None else times[places[chosen]]
                found[chosen, found.shape[1] - times.shape[-1] :] = rows
            return found.T
        times = self._times(0, queries)
        rows = np.broadcast_to(times, (designs, queries)) if times.ndim == 1 or places is None else times[places]
        number = np.arange(found.shape[1]) - (found.shape[1] - counts)[:, None]
        starts = np.arange(designs)[:, None] * queries + number * sizes[:, None]
        full = number >= 0
        found[full] = np.add.reduceat(rows.ravel(), starts[full])
        return found.T

    def _times(self, first: int, count: int) -> Array:
        keys = self.seen.first + self.seen.step * np.arange(first, first + count, dtype=np.float64)
        times = self.parts[0].at(keys)
        for part in self.parts[1:]:
            times = np.maximum(times, part.at(keys))
        return times

    def at_least(self, seconds: float) -> KeyTimes:
        """The times if every query takes at least `seconds`."""
        return KeyTimes(self.seen, (*self.parts, PerQueryCost(seconds)))

    def and_then(self, parts: tuple[PerQueryCost, ...]) -> KeyTimes:
        """The times if what takes the slowest of `parts` follows on the same unit."""
        return KeyTimes(self.seen, tuple(one + other for one in self.parts for other in parts))
