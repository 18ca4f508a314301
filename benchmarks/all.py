"""Times plain PyTorch, models on crossbars at every level, and aihwkit-lightning where it is installed, in one run.

All cases of a shape take turns. On a GPU the models are bfloat16, on a CPU float32 with one thread. Weights are written
beforehand; K and V are written in every pass, which aihwkit-lightning leaves digital. Under each table are the
operations that take most of one pass of the slowest case. Writes benchmarks/results_<device>.md.

    python benchmarks/all.py --device cpu [--shapes deit smollm2] [--batches 2] [--seconds 60]
    python benchmarks/all.py --device cuda
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import platform
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from shapes import LEVELS, LOOPS, ON_64_ROWS, SHAPES, Shape, on_crossbars
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from turns import medians

import ohmformer as of
from ohmformer.streams.backends import drawn_on

DEFAULTS = {"cpu": (["linears", "deit", "smollm2-decode"], [2]), "cuda": (list(SHAPES), [2, 8, 64])}
"""Device -> shapes and batches."""
PEER = "aihwkit_lightning"
MOST_OPERATIONS = 8


def of_peer(model: nn.Module, rows: int, noise: float) -> nn.Module:
    """The model on aihwkit-lightning: 8-bit inputs and outputs, `rows` inputs to a tile, noise of weights.

    It draws that noise in training mode only, so a model with noise stays in that.
    """
    from aihwkit_lightning.nn.conversion import convert_to_analog  # type: ignore[import-not-found]
    from aihwkit_lightning.simulator.configs import TorchInferenceRPUConfig  # type: ignore[import-not-found]
    from aihwkit_lightning.simulator.parameters.enums import (  # type: ignore[import-not-found]
        WeightNoiseInjectionType,
    )

    config = TorchInferenceRPUConfig()
    config.mapping.max_input_size = rows
    config.forward.inp_res = config.forward.out_res = 254
    config.forward.out_bound = 10.0
    config.pre_post.input_range.enable = True
    config.pre_post.input_range.init_from_data = 0
    if noise:
        config.modifier.std_dev, config.modifier.noise_type = noise, WeightNoiseInjectionType.ADD_NORMAL
    found: nn.Module = convert_to_analog(copy.deepcopy(model), config)
    return found.train(noise > 0)


def models(shape: Shape, sample: Tensor) -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    """Name and maker of each model of a shape, the digital one first."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if sample.device.type == "cuda" else torch.float32
    with sample.device:  # large models are initialized there
        digital = shape.build()
    digital = digital.to(sample.device, dtype).eval()
    yield "digital", lambda: digital
    loops = LOOPS if sample.device.type == "cpu" else ()
    cases = ON_64_ROWS if shape.rows == (64,) else LEVELS
    for case in shape.cases or cases:
        yield case, partial(on_crossbars, digital, sample, case)
        for kernels in loops:
            yield f"{case}, {kernels}", partial(on_crossbars, digital, sample, case, kernels)
    if importlib.util.find_spec(PEER) is not None and not shape.cases:
        attention = "" if cases is ON_64_ROWS else ", attention digital"
        for rows in shape.rows:
            yield f"{PEER}, {rows} rows{attention}", partial(of_peer, digital, rows, 0.0)
            yield f"{PEER}, {rows} rows, weight noise{attention}", partial(of_peer, digital, rows, 0.02)


def measured(shape: Shape, batch: int, device: torch.device, seconds: float) -> list[str]:
    """The lines of the table of a shape and a batch, and what its slowest case spends its time on."""
    cuda = device.type == "cuda"
    here = memory_of(device)
    if here < shape.memory:
        return [f"## {shape.name}, batch {batch}", "", f"Not timed: needs {shape.memory:.0f} GiB of {here:.0f}.", ""]
    inputs = shape.inputs(batch, device, torch.bfloat16 if cuda else torch.float32)
    passes: dict[str, Callable[[], object]] = {}
    memory: dict[str, str] = {}
    failed: list[str] = []
    for name, make in models(shape, inputs[:1]):
        try:
            passes[name] = partial(torch.inference_mode()(shape.work), make(), inputs)
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            passes[name]()
            memory[name] = f"{torch.cuda.max_memory_allocated() / 2**30:.2f}" if cuda else "-"
        except (of.BadInput, RuntimeError, TypeError, ValueError, AssertionError) as error:  # a peer may lack a case
            passes.pop(name, None)
            failed.append(f"{name}: {str(error).splitlines()[0][:200]}")
    wait = torch.cuda.synchronize if cuda else lambda: None
    # On the CPU processor time, which leaves out the time in which other processes had the core.
    clock = time.perf_counter if cuda else time.process_time
    found = medians(passes, rounds=20, warm_up=1, wait=wait, seconds=seconds, clock=clock)
    lines = [f"## {shape.name}, batch {batch}", "", "| case | ms | times digital | GiB |", "|---|--:|--:|--:|"]
    lines += [
        f"| {name} | {1e3 * took:.1f} | {took / found['digital']:.2f} | {memory[name]} |"
        for name, took in found.items()
    ]
    slowest = max((name for name in found if name in LEVELS | ON_64_ROWS), key=lambda name: found[name], default="")
    spent = ["", f"Most time of “{slowest}”: {most_of(passes[slowest], cuda)}."] if slowest else []
    return [*lines, *spent, *(f"\nNot timed: {reason}." for reason in failed), ""]


def memory_of(device: torch.device) -> float:
    """The memory of a device, of the CPU what programs may still take [GiB]."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory) / 2**30
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**20


def most_of(work: Callable[[], object], cuda: bool) -> str:
    """The operations that take most of the time of one pass, with their shares."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as seen:
        work()
    own = {
        each.key.removeprefix("aten::"): float(each.self_device_time_total if cuda else each.self_cpu_time_total)
        for each in seen.key_averages()
    }
    total = sum(own.values()) or 1.0
    largest = sorted(own, key=lambda name: -own[name])[:MOST_OPERATIONS]
    return ", ".join(f"{name} {100 * own[name] / total:.0f} %" for name in largest)


def heading(device: torch.device) -> str:
    """What was measured on what."""
    card = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, one thread"
    peer = f", {PEER} {version(PEER)}" if importlib.util.find_spec(PEER) is not None else f"; {PEER} is not installed"
    triton = " with Triton" if os.environ.get("AIHWKIT_USE_TRITON") else ""
    load = f"; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    clock = "" if device.type == "cuda" else f" of processor time{load}"
    return (
        f"# Speed on {card}\n\n"
        f"torch {torch.__version__}, ohmformer {version('ohmformer')}{peer}{triton}. Medians{clock}. "
        "The rows of a table take turns. GiB is the most memory that one pass had allocated, all models included. "
        f"Generator of random numbers: {drawn_on(device)}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=list(DEFAULTS), default="cpu")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES))
    parser.add_argument("--batches", nargs="+", type=int)
    parser.add_argument("--seconds", type=float, default=30.0, help="time of the rounds of one table")
    parser.add_argument("--write", type=Path, help="by default results_<device>.md beside this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device, (shapes, batches) = torch.device(options.device), DEFAULTS[options.device]
    file = options.write or Path(__file__).with_name(f"results_{options.device}.md")
    parts = [heading(device)]
    for name in options.shapes or shapes:
        for batch in options.batches or batches:
            parts.append("\n".join(measured(SHAPES[name], batch, device, options.seconds)))
            print(parts[-1], flush=True)
            file.write_text("\n\n".join(parts).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
