"""BERT-base on 512 x 512 arrays with digital attention, token by token, against a scheduler of single operations.

The rules and times are those of 3D-SiM (IBM) as it is shipped. Every product of one array, message, addition,
normalization and activation of every token is an operation. An array, one of four digital units, or the unit of
attention does one at a time, earlier tokens first. Attention waits for all tokens and is one operation.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import ceil

import pytest

from ohmformer.validation.claims import check

PRODUCT, MESSAGE, ADDITION, NORM, GELU, ATTENTION = 100.0, 10.0, 10.0, 50.0, 10.0, 2.0
"""Times [ns]."""
SIZE, WIDTH, HIDDEN, LAYERS, DIGITAL_UNITS = 512, 768, 3072, 12, 4


@dataclass
class Graph:
    """Operations in the order in which they may run: unit (None for messages), time [ns], inputs, token."""

    operations: list[tuple[Hashable, float, Sequence[int], int]] = field(default_factory=list)
    product: float = PRODUCT

    def add(self, unit: Hashable, time: float, inputs: Sequence[int], token: int) -> int:
        self.operations.append((unit, time, inputs, token))
        return len(self.operations) - 1

    def linear(self, name: str, token: int, rows: int, columns: int, inputs: Sequence[int]) -> list[int]:
        """A product with a matrix on several arrays; the results of row blocks are added one by one."""
        results = []
        for column in range(ceil(columns / SIZE)):
            total = None
            for row in range(ceil(rows / SIZE)):
                sent = [self.add(None, MESSAGE, inputs, token)] if inputs else []
                product = self.add((name, row, column), self.product, sent, token)
                partial = self.add(None, MESSAGE, [product], token)
                total = partial if total is None else self.add("digital", ADDITION, [total, partial], token)
            assert total is not None
            results.append(total)
        return results

    def latency(self, digital_units: int = DIGITAL_UNITS) -> float:
        """Time until all operations have run [ns]."""
        waiting = [len(inputs) for _, _, inputs, _ in self.operations]
        users: dict[int, list[int]] = defaultdict(list)
        for number, (_, _, inputs, _) in enumerate(self.operations):
            for other in inputs:
                users[other].append(number)
        free: dict[Hashable, int] = defaultdict(lambda: 1, digital=digital_units)
        queues: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
        running: list[tuple[float, int]] = []
        now, ready = 0.0, [number for number, count in enumerate(waiting) if not count]
        while True:
            touched = ({self.operations[number][0] for number in ready} | set(free)) - {None}
            for number in ready:
                unit, time, _, token = self.operations[number]
                if unit is None:
                    heapq.heappush(running, (now + time, number))
                else:
                    heapq.heappush(queues[unit], (token, number))
            for unit in touched:
                while queues[unit] and free[unit]:
                    number = heapq.heappop(queues[unit])[1]
                    free[unit] -= 1
                    heapq.heappush(running, (now + self.operations[number][1], number))
            if not running:
                return now
            now, ready = running[0][0], []
            while running and running[0][0] == now:
                number = heapq.heappop(running)[1]
                unit = self.operations[number][0]
                if unit is not None:
                    free[unit] += 1
                for user in users[number]:
                    waiting[user] -= 1
                    ready += [user] if not waiting[user] else []


def bert(tokens: int, product: float = PRODUCT, attention_time: float = ATTENTION) -> Graph:
    graph, width = Graph(product=product), WIDTH
    kqv = [each for token in range(tokens) for name in "qkv" for each in graph.linear(name, token, width, width, [])]
    before: list[list[int]] = [[] for _ in range(tokens)]
    for layer in range(LAYERS):
        attention, kqv = graph.add("attention", attention_time, kqv, 0), []
        for token in range(tokens):
            result = graph.linear(f"output {layer}", token, width, width, [attention])
            first = graph.add("digital", ADDITION, [*result, *before[token]], token)
            first = graph.add("digital", NORM, [first], token)
            hidden = graph.linear(f"ffn1 {layer}", token, width, HIDDEN, [first])
            active = graph.add("digital", GELU, hidden, token)
            result = graph.linear(f"ffn2 {layer}", token, HIDDEN, width, [active])
            second = graph.add("digital", ADDITION, [first, *result], token)
            before[token] = [graph.add("digital", NORM, [second], token)]
            for name in "qkv" if layer + 1 < LAYERS else "":
                kqv += graph.linear(f"{name} {layer + 1}", token, width, width, before[token])
    return graph


FOUND = {entry.claim.id: entry for entry in check("digital_attention_3dsim").claims}


@pytest.mark.parametrize("tokens", [64, pytest.param(128, marks=pytest.mark.slow)])
def test_the_reported_latency_is_what_the_rules_give(tokens: int) -> None:
    reported = FOUND[f"digital_attention_{tokens}"].reported
    assert reported == pytest.approx(bert(tokens).latency() * 1e-9, rel=1e-3)


def test_a_script_for_bert_has_faster_products_and_more_digital_units() -> None:
    reported = FOUND["digital_attention_32_fast"].reported
    assert reported == pytest.approx(bert(32, product=40.0).latency(digital_units=288) * 1e-9, rel=1e-3)


@pytest.mark.parametrize(
    ("run", "tokens", "product", "units"),
    [
        ("64_fast_4_units", 64, 40.0, 4),
        pytest.param("128_fast_4_units", 128, 40.0, 4, marks=pytest.mark.slow),
        pytest.param("64_1_unit", 64, 100.0, 1, marks=pytest.mark.slow),
        pytest.param("64_2_units", 64, 100.0, 2, marks=pytest.mark.slow),
    ],
)
def test_few_digital_units_limit_the_latency(run: str, tokens: int, product: float, units: int) -> None:
    reported = FOUND[f"digital_attention_{run}"].reported
    assert reported == pytest.approx(bert(tokens, product=product).latency(digital_units=units) * 1e-9, rel=1e-3)


@pytest.mark.slow
def test_a_unit_of_attention_that_takes_whole_sequences() -> None:
    reported = FOUND["digital_attention_64_slow_attention"].reported
    assert reported == pytest.approx(bert(64, attention_time=10_000.0).latency() * 1e-9, rel=1e-3)


FEW_UNITS = ["64_fast_4_units", "128_fast_4_units", "64_1_unit", "64_2_units", "64_slow_attention"]


@pytest.mark.parametrize("run", ["64", "128", "256", "32_fast", *FEW_UNITS])
def test_the_model_is_within_15_percent(run: str) -> None:
    assert FOUND[f"digital_attention_{run}"].verdict == "met"
