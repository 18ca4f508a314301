"""How fast the cost half is: design points through the closed form, and a long sequence through the event engine.

python benchmarks/cost.py > benchmarks/cost.md
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from statistics import median

import numpy as np

import ohmformer as of
from ohmformer.cost.placement import place
from ohmformer.dataflow.closed_form import Designs, latencies, latency
from ohmformer.schema import load

POINTS = 5000

MEANING = """The first two rows take one priced placement and vary block sizes and stage times. `explore` starts from
specifications: changing the accelerator, the shapes of every length, placement, energy, area and latency are all in its
time; changing it takes about 60 us for each number. Accelerators that differ in numbers alone are priced at once;
those with other converters per array in groups of their own. Block sizes share prices."""


def timed(call: Callable[[], object], repeats: int = 5, clock: Callable[[], float] = time.process_time) -> float:
    """Median seconds of a few runs, by default of processor time, which other processes disturb less."""
    found = []
    for _ in range(repeats):
        start = clock()
        call()
        found.append(clock() - start)
    return median(found)


def designs(count: int) -> Designs:
    """Block sizes, and arrays and attention engines of other speeds."""
    random = np.random.default_rng(0)
    stages = ("qkv", "key", "value", "output", "ffn1", "ffn2")
    return Designs(random.integers(8, 513, count), {name: random.uniform(0.2, 5.0, count) for name in stages})


def grid(hardware: of.Accelerator) -> list[of.DesignPoint]:
    """Block size x sequence length x converters of an array x energy of a conversion: 6,144 points of BERT-large."""
    table = load(of.Transformer, "bert-large")
    works = [of.shapes(table, tokens=tokens) for tokens in range(64, 513, 64)]
    shared = [of.replace(hardware, "projection.array.adc.columns_per_adc", n) for n in (1, 8, 32, 128)]
    machines = [
        of.replace(machine, "projection.array.cost.adc_energy", energy)
        for machine in shared
        for energy in np.linspace(1e-12, 4e-12, 12).tolist()
    ]
    dataflows = [of.SequenceBlocking(block=block) for block in range(8, 129, 8)]
    return [of.DesignPoint(*point) for point in product(works, machines, dataflows)]


PASSES: dict[str, tuple[of.Workload, of.Dataflow]] = {
    "BERT-large in blocks": (of.shapes("bert-large", tokens=512), of.SequenceBlocking()),
    "BERT-large, layers overlap": (of.shapes("bert-large", tokens=512), of.LayerOverlap()),
    "BERT-large in blocks, batch 8": (of.shapes("bert-large", tokens=512, batch=8), of.SequenceBlocking()),
    "GPT-2, prefill in blocks": (of.shapes("gpt2", phase="prefill", tokens=512), of.SequenceBlocking()),
    "GPT-2, decoding": (of.shapes("gpt2", phase="decode", context=512), of.LayerSerial()),
}
"""What accelerators are swept for."""
SWEPT = {
    "energy of a conversion": ("projection.array.cost.adc_energy", 1e-12, 4e-12),
    "time of a read": ("attention.array.cost.read_time", 1e-9, 4e-7),
}
"""What is swept: its path, from and to."""


def machines_alone(passed: str, swept: str, hardware: of.Accelerator, count: int) -> list[of.DesignPoint]:
    """As many accelerators as points: no price can be used twice."""
    (work, dataflow), (path, low, high) = PASSES[passed], SWEPT[swept]
    machines = (of.replace(hardware, path, value) for value in np.linspace(low, high, count).tolist())
    return [of.DesignPoint(work, machine, dataflow) for machine in machines]


def blocks_alone(passed: str, hardware: of.Accelerator, count: int) -> list[of.DesignPoint]:
    """One accelerator, and another number of tokens per block at each point."""
    work, dataflow = PASSES[passed]
    return [of.DesignPoint(work, hardware, of.replace(dataflow, "block", block)) for block in range(8, 8 + count)]


def explored(hardware: of.Accelerator) -> list[tuple[str, str]]:
    """Rows of `explore`, with another accelerator at each point, and with another block."""
    rows = []
    for passed, swept in product(PASSES, SWEPT):
        seconds = timed(lambda passed=passed, swept=swept: of.explore(machines_alone(passed, swept, hardware, 500)), 3)
        rows.append((f"`explore`, another {swept} at each point: {passed}", f"{500 / seconds:,.0f} designs/s"))
    for passed in (name for name, (_, dataflow) in PASSES.items() if not isinstance(dataflow, of.LayerSerial)):
        seconds = timed(lambda passed=passed: of.explore(blocks_alone(passed, hardware, 100)), 3)
        rows.append((f"`explore`, another block at each point: {passed}", f"{100 / seconds:,.0f} designs/s"))
    return rows


def main() -> None:
    """Print the table."""
    hardware = of.load("xformer_tvlsi_2023")
    large = place(of.shapes("bert-large", tokens=512), hardware)
    points = designs(POINTS)
    long = of.Transformer(
        title="24 layers", kind="encoder", layers=24, width=1024, heads=16, hidden=4096, tokens=4096
    )  # fmt: skip
    deep = of.shapes(long)
    rows = []
    for dependencies in ("exact", "published"):
        dataflow = of.SequenceBlocking(dependencies=dependencies)
        seconds = timed(lambda dataflow=dataflow: latencies(large, dataflow, points))
        name = f"closed form, BERT-large, blocks and stage times vary, {dependencies}"
        rows.append((name, f"{POINTS / seconds:,.0f} designs/s"))
    count = len(grid(hardware))
    seconds = timed(lambda: of.explore(grid(hardware)))
    rows.append(
        (f"`explore`: {count:,} points, blocks x lengths x converters x energies", f"{count / seconds:,.0f} designs/s")
    )
    rows += explored(hardware)
    work = of.shapes("bert-large", tokens=512)
    seconds = timed(lambda: latency(place(work, hardware), of.SequenceBlocking()), 50)
    rows.append(("one by one, placed and priced anew", f"{1 / seconds:,.0f} designs/s"))
    seconds = timed(lambda: latency(place(of.shapes("bert-large"), hardware), of.SequenceBlocking()), 50)
    rows.append(("the same, the table of dimensions read from its file each time", f"{1 / seconds:,.0f} designs/s"))
    seconds = timed(lambda: of.simulate(deep, hardware, of.SequenceBlocking()).latency)
    count = len(of.simulate(deep, hardware, of.SequenceBlocking()).timeline.jobs)
    rows.append((f"event engine, 24 layers, 4096 tokens, blocks of 64 ({count:,} jobs)", f"{seconds:.2f} s"))
    seconds = timed(lambda: of.simulate(deep, hardware, of.SequenceBlocking()).energy)
    rows.append(("the same, and its energy by component", f"{seconds:.2f} s"))
    command = [sys.executable, "-m", "ohmformer.cli", "cost", "bert_base"]
    seconds = timed(lambda: subprocess.run(command, capture_output=True, check=True), 3, time.perf_counter)
    rows.append(("`ohmformer cost bert_base`, three points, from start to end", f"{seconds:.2f} s"))
    print("# The cost half\n\n`python benchmarks/cost.py > benchmarks/cost.md`, on one of two shared virtual cores.\n")
    print("| what | one core |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")
    print(f"\n{MEANING}")


if __name__ == "__main__":
    main()
