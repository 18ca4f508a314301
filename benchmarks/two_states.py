"""Does a whole vision transformer of DeiT-S's shape take longer than with an earlier state of the code?

Each state is a checkout whose environment has its package. Its models stay in a process of their own, and single
forward passes of both states take turns, so that a busy machine slows both alike. Where even the digital model differs
by per cents from pass to pass, times alone decide little. So the values that the operations of one pass work on are
counted, too: for each operation, the size of its largest input.

    python benchmarks/two_states.py BEFORE/.venv/bin/python AFTER/.venv/bin/python [--rounds 20] [--write FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from turns import show

SERVER = """
import json, os, pathlib, sys, time, warnings
warnings.simplefilter("ignore")
import ohmformer as of
sys.path.insert(0, str(pathlib.Path(of.__file__).parents[2] / "benchmarks"))
import torch, vit
from torch.profiler import ProfilerActivity, profile
torch.set_num_threads(1)
torch.manual_seed(0)
images = torch.randn(vit.BATCH, 3, 224, 224)
answers = os.fdopen(os.dup(1), "w")

def answer(value):
    print("ANSWER" + json.dumps(value), file=answers, flush=True)

with torch.inference_mode(), of.samples(range(vit.BATCH)):
    cases = vit.cases(images)
    operations = {}
    for name, model in cases.items():
        model(images)
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
            model(images)
        operations[name] = [(e.key, str(e.input_shapes), e.count) for e in seen.key_averages(group_by_input_shape=True)]
    answer(operations)
    for line in sys.stdin:
        start = time.perf_counter()
        cases[line.strip()](images)
        answer(time.perf_counter() - start)
"""
VIEWS = {
    f"aten::{name}"
    for name in [
        "to",
        "as_strided",
        "transpose",
        "detach",
        "view",
        "_unsafe_view",
        "reshape",
        "select",
        "narrow",
        "slice",
        "split",
        "unbind",
        "expand",
        "resolve_conj",
        "alias",
        "unsqueeze",
        "squeeze",
        "empty_like",
    ]
}
"""Operations that copy nothing, or call another one that is counted for itself."""


class State:
    """A checkout, running in a process of its own."""

    def __init__(self, python: Path) -> None:
        quiet: dict[str, Any] = {"stderr": subprocess.DEVNULL, "text": True, "bufsize": 1}
        command = [str(python), "-c", SERVER]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **quiet)
        self.values = {name: Counter(_values_by_operation(each)) for name, each in self._answer().items()}

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ANSWER"):
                return json.loads(line.removeprefix("ANSWER"))
        raise SystemExit(f"{self.process.args}: ended without an answer; run benchmarks/vit.py there")

    def seconds(self, case: str) -> float:
        """Seconds of one pass."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{case}\n")
        return float(self._answer())


def _values_by_operation(operations: list[tuple[str, str, int]]) -> dict[str, int]:
    """Operation -> number of values in the largest inputs of its calls in a pass; views are left out."""
    found: Counter[str] = Counter()
    for name, shapes, count in operations:
        sizes = [values(shape) for shape in json.loads(shapes) if isinstance(shape, list)]
        if name not in VIEWS:
            found[name.removeprefix("aten::")] += count * max(sizes, default=0)
    return found


def values(shape: list[Any]) -> int:
    """The number of values of a shape; that of the largest of a list of shapes."""
    if shape and isinstance(shape[0], list):
        return max(values(each) for each in shape)
    size = 1
    for n in shape:
        size *= n
    return size if shape else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    states = before, after = State(arguments.before), State(arguments.after)
    ratios: dict[str, list[float]] = {name: [] for name in before.values}
    for turn in range(arguments.rounds + 1):
        for name, found in ratios.items():
            order = states if turn % 2 else states[::-1]
            taken = {state: state.seconds(name) for state in order}
            if turn:
                found.append(taken[after] / taken[before])
    lines = [
        f"One thread, median of {arguments.rounds} rounds in which the states take turns; in brackets the quartiles of "
        "the single ratios. Values are those that all operations of a pass work on, in millions.",
        "",
        "| DeiT-S shape | time after / before | values before | after |",
        "|---|--:|--:|--:|",
    ]
    for name, found in ratios.items():
        low, middle, high = statistics.quantiles(found, n=4)
        millions = " | ".join(f"{state.values[name].total() / 1e6:,.1f}" for state in states)
        lines.append(f"| {name} | {middle:.3f} ({low:.2f} to {high:.2f}) | {millions} |")
    lines += ["", "Operations that work on more or fewer values than before, in millions:", ""]
    for name, now in after.values.items():
        then = before.values[name]
        changed = [f"{each} {(now[each] - then[each]) / 1e6:+.1f}" for each in sorted(then | now)]
        lines.append(f"- {name}: {', '.join(each for each in changed if not each.endswith('0.0')) or 'none'}")
    show("Two states of the code", "\n".join(lines) + "\n", arguments.write)


if __name__ == "__main__":
    main()
