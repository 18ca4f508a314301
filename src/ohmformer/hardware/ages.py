"""How old keys and values are when they are read, and how often their cells are written. Both halves may use it.

A token of an operand is written once and read by many queries. So two times for each token say everything: when it is
in its cells, and when its query reads. The age of key j for query i is

    age(i, j) = read[i] - max(written[j], rewritten[i]),

where rewritten[i] is the last time before this read at which all cells were written anew, such as by a refresh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ohmformer.errors import BadInput, given, shown
from ohmformer.quantities import whole_number

Array = npt.NDArray[np.float64]
Numbers = Sequence[int] | npt.NDArray[np.int64]
"""Numbers of tokens; negative where there is no token."""

HOUR = 3600.0
TIMES = ("written", "read", "rewritten")


@dataclass(frozen=True, eq=False)
class OperandAges:
    """The times of one operand in one layer.

    Attributes:
        name: name of the product, such as `layers.0.attention.scores`.
        role: attention.key or attention.value.
        layer: index of the layer.
        written: [K], time at which each token is in its cells [s].
        read: [Q], time at which the query of each token has read [s]; `first_query` is the token of the first query.
        rewritten: [Q], the last time before each read at which all cells were written anew [s]; -inf for never.
        first_query: number of the token whose query comes first.
        causal: True if a query reads the keys of its own token and of those before it; False if it reads all.
        across: True for cross attention: keys are tokens of another sequence.
    """

    name: str
    role: str
    layer: int | None
    written: Array
    read: Array
    rewritten: Array
    first_query: int = 0
    causal: bool = False
    across: bool = False

    def age(self, query: int, key: int) -> float:
        """The age of a key (or value) when a query reads it [s].

        Args:
            query: number of the query's token.
            key: number of the key's token.

        Raises:
            BadInput: there is no such token, or the query does not read this key.
        """
        query, key = _token("age: query", query), _token("age: key", key)
        place = query - self.first_query
        if not 0 <= place < len(self.read) or not 0 <= key < len(self.written):
            raise BadInput(
                f"age: query = {shown(query)}, key = {shown(key)}: are not tokens of {self.name}, which has queries "
                f"{self.first_query} to {self.first_query + len(self.read) - 1} and keys 0 to {len(self.written) - 1}"
            )
        if self.causal and not self.across and key > query:
            raise BadInput(f"age: key = {key}: query {query} reads no later token; give a key up to {query}")
        return float(self.read[place] - max(self.written[key], self.rewritten[place]))

    def at_distance(self, distance: int) -> Array:
        """The ages of all pairs of a query and the key `distance` tokens before it, in the order of queries [s].

        A negative distance is a key after the query. Empty if no query reads such a key.

        Raises:
            BadInput: this is cross attention, whose tokens have no distance, or the distance is no whole number.
        """
        distance = _token("at_distance: distance", distance)
        if self.across:
            raise BadInput(f"at_distance: {self.name} is cross attention, whose tokens have no distance; take age")
        if self.causal and distance < 0:
            return np.zeros(0)
        keys = np.arange(self.first_query, self.first_query + len(self.read)) - distance
        places = np.flatnonzero((keys >= 0) & (keys < len(self.written)))
        found: Array = self.read[places] - np.maximum(self.written[keys[places]], self.rewritten[places])
        return found

    def by_distance(self) -> tuple[npt.NDArray[np.int64], Array, Array]:
        """The distances that occur, in ascending order, and the mean and the longest age at each [s]."""
        last = self.first_query + len(self.read) - 1
        distances, mean, longest = [], [], []
        for distance in range(self.first_query - len(self.written) + 1, last + 1):
            ages = self.at_distance(distance)
            if len(ages):
                distances.append(distance)
                mean.append(ages.mean())
                longest.append(ages.max())
        return np.array(distances, dtype=np.int64), np.array(mean), np.array(longest)

    def between(self, queries: Numbers, keys: Numbers) -> Array:
        """The ages of keys when queries read them.

        Args:
            queries: [M] numbers of the queries' tokens.
            keys: [n] numbers of the keys' tokens.

        Returns:
            [M, n] ages [s]; 0 where a number is negative, or a key is written after the query has read.

        Raises:
            BadInput: a number is not among those of the timeline.
        """
        asked, held = self._places("query", queries), self._places("key", keys)
        found = self.read[asked, None] - np.maximum(self.written[held], self.rewritten[asked, None])
        known = (np.asarray(queries)[:, None] >= 0) & (np.asarray(keys) >= 0)
        ages: Array = np.where(known, np.maximum(found, 0.0), 0.0)
        return ages

    def over_queries(self, keys: Numbers, which: Literal["mean", "longest"] = "mean") -> Array:
        """The mean or the longest age of each key over all queries.

        Args:
            keys: [n] numbers of the keys' tokens.
            which: "mean" or "longest".

        Returns:
            [n] ages [s]; 0 where a number is negative.

        Raises:
            BadInput: a number is not among those of the timeline.
        """
        held = self._places("key", keys)
        found = np.zeros(len(held))
        for place, key in enumerate(held):
            ages = np.maximum(self.read - np.maximum(self.written[key], self.rewritten), 0.0)
            found[place] = ages.mean() if which == "mean" else ages.max()
        return np.where(np.asarray(keys) >= 0, found, 0.0)

    def refreshes(self, queries: Numbers, keys: Numbers) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The refreshes that keys have seen when queries read them.

        Args:
            queries: [M] numbers of the queries' tokens.
            keys: [n] numbers of the keys' tokens.

        Returns:
            [M] number of refreshes before each query has read; [M, n] True for keys that the last of them wrote again.
        """
        asked, held = self._places("query", queries), self._places("key", keys)
        times = np.unique(self.rewritten[np.isfinite(self.rewritten)])
        count = np.searchsorted(times, self.rewritten[asked], side="right").astype(np.int64)
        return count, self.rewritten[asked, None] > self.written[held]

    def _places(self, what: Literal["query", "key"], numbers: Numbers) -> npt.NDArray[np.int64]:
        """Indices of tokens among the times of queries or keys; 0 for negative numbers.

        Raises:
            BadInput: the timeline has no such token.
        """
        wanted = np.asarray(numbers, dtype=np.int64)
        first, count = (self.first_query, len(self.read)) if what == "query" else (0, len(self.written))
        outside = wanted[(wanted >= 0) & ((wanted < first) | (wanted >= first + count))]
        if len(outside):
            raise BadInput(
                f"ages: {self.name}: {what} {outside[0]} is not in the timeline, which has {what} numbers {first} to "
                f"{first + count - 1}; take a timeline of texts that are as long"
            )
        places: npt.NDArray[np.int64] = np.where(wanted < 0, 0, wanted - first)
        return places

    def plain(self) -> dict[str, Any]:
        """All attributes as JSON values; an infinite time is None."""
        times = {name: _plain_times(getattr(self, name)) for name in TIMES}
        others = {name: getattr(self, name) for name in ("name", "role", "layer", "first_query", "causal", "across")}
        return {**others, **times}

    @property
    def longest(self) -> float:
        """The longest age of any read [s]: a query reads the first key, too."""
        return float((self.read - np.maximum(self.written.min(), self.rewritten)).max())


@dataclass(frozen=True)
class CellWrites:
    """How often cells of one role are written.

    Attributes:
        role: attention.key or attention.value.
        most: writes of the most written cell in the time of the ages.
        mean: mean writes of all cells in this time.
        seconds: this time [s].
    """

    role: str
    most: float
    mean: float
    seconds: float

    @property
    def most_per_hour(self) -> float:
        """Writes per hour of the most written cell, if passes follow one another without a pause."""
        return self.most / self.seconds * HOUR

    @property
    def mean_per_hour(self) -> float:
        """Mean writes per hour of all cells, if passes follow one another without a pause."""
        return self.mean / self.seconds * HOUR


@dataclass(frozen=True)
class Ages:
    """When the tokens of K and V are written and read over one pass or request, and how often cells are written.

    Attributes:
        operands: the operands of every layer; empty if K and V are in no cells.
        writes: the writes of each kind of arrays.
        seconds: time from the start of the pass or request to its end [s].
        sample: number of the sample (or request) of the batch.
        encoder: the age of a token that all queries read, as in an encoder: its "mean" over the queries, or its
            "longest".
    """

    operands: tuple[OperandAges, ...] = ()
    writes: tuple[CellWrites, ...] = ()
    seconds: float = 0.0
    sample: int = field(default=0)
    encoder: Literal["mean", "longest"] = "mean"

    def __post_init__(self) -> None:
        if self.encoder not in ("mean", "longest"):
            raise BadInput(f"Ages: encoder is {given(self.encoder)}; give 'mean' or 'longest'")

    def plain(self) -> dict[str, Any]:
        """The times of all operands as JSON values, without the writes of cells; see `read`."""
        return {"encoder": self.encoder, "operands": [operand.plain() for operand in self.operands]}

    @staticmethod
    def read(table: Any) -> Ages:
        """The ages of what `plain` returned.

        Raises:
            BadInput: it is anything else.
        """
        try:
            operands = tuple(
                OperandAges(**{**entry, **{name: _read_times(entry[name]) for name in TIMES}})
                for entry in table["operands"]
            )
            return Ages(operands, encoder=table["encoder"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput("ages: are not those that Ages.plain() returned; take these") from error

    @property
    def longest(self) -> float:
        """The longest age of any read [s]; 0 without cells."""
        return max((operand.longest for operand in self.operands), default=0.0)

    def of(self, layer: int, role: str) -> OperandAges:
        """The self attention of a layer.

        Args:
            layer: index of the layer.
            role: attention.key or attention.value.

        Raises:
            BadInput: there are none.
        """
        index = whole_number(layer)
        for operand in self.operands:
            if operand.layer == index and operand.role == role and not operand.across:
                return operand
        raise BadInput(f"ages: layer = {shown(layer)}, role = {shown(role)}: nothing in cells; take one of `operands`")


def _plain_times(times: Array) -> list[float | None]:
    """Times as JSON values; None for minus infinity."""
    return [value if np.isfinite(value) else None for value in np.asarray(times, dtype=np.float64).tolist()]


def _read_times(times: Sequence[float | None]) -> Array:
    """The inverse of `_plain_times`."""
    return np.array([-np.inf if value is None else float(value) for value in times], dtype=np.float64)


def _token(name: str, value: object) -> int:
    """A number or distance of tokens, of any integer type, as an int.

    Raises:
        BadInput: it is no whole number.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = whole_number(value)
    if number == -1 and value != -1:
        raise BadInput(f"{name} is {given(value)}; give a whole number")
    return number
