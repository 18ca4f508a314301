"""How fast the cost half is: design points through the closed form, and a long sequence through the event engine.

python benchmarks/cost.py > benchmarks/cost.md
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

import ohmformer as of
from ohmformer.arch.placement import place
from ohmformer.dataflow.closed_form import Designs, latencies, latency

POINTS = 5000


def timed(task: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest of a few runs."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        task()
        found.append(time.perf_counter() - start)
    return min(found)


def designs(count: int) -> Designs:
    """Block sizes, and arrays and attention engines of other speeds."""
    random = np.random.default_rng(0)
    stages = ("qkv", "key", "value", "output", "ffn1", "ffn2")
    return Designs(random.integers(8, 513, count), {name: random.uniform(0.2, 5.0, count) for name in stages})


def main() -> None:
    """Print the table."""
    hardware = of.load("xformer_tvlsi_2023")
    large = place(of.shapes("bert-large", tokens=512), hardware)
    points = designs(POINTS)
    long = of.Transformer(
        title="24 layers", kind="encoder", layers=24, width=1024, heads=16, hidden=4096, tokens=4096
    )  # fmt: skip
    work = of.shapes(long)
    rows = []
    for dependencies in ("exact", "published"):
        dataflow = of.SequenceBlocking(dependencies=dependencies)
        seconds = timed(lambda dataflow=dataflow: latencies(large, dataflow, points))
        name = f"closed form, BERT-large, blocks and stage times vary, {dependencies}"
        rows.append((name, f"{POINTS / seconds:,.0f} designs/s"))
    seconds = timed(lambda: latency(place(of.shapes("bert-large"), hardware), of.SequenceBlocking()))
    rows.append(("closed form, each design placed and priced anew", f"{1 / seconds:,.0f} designs/s"))
    seconds = timed(lambda: of.simulate(work, hardware, of.SequenceBlocking()).latency)
    count = len(of.simulate(work, hardware, of.SequenceBlocking()).timeline.tasks)
    rows.append((f"event engine, 24 layers, 4096 tokens, blocks of 64 ({count:,} tasks)", f"{seconds:.2f} s"))
    seconds = timed(lambda: of.simulate(work, hardware, of.SequenceBlocking()).energy)
    rows.append(("the same, and its energy by component", f"{seconds:.2f} s"))
    command = [sys.executable, "-m", "ohmformer.cli", "cost", "bert_base"]
    seconds = timed(lambda: subprocess.run(command, capture_output=True, check=True), 3)
    rows.append(("`ohmformer cost bert_base`, three points, from start to end", f"{seconds:.2f} s"))
    print("# The cost half\n\n`python benchmarks/cost.py > benchmarks/cost.md`, on one of two shared virtual cores.\n")
    print("| what | one core |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
