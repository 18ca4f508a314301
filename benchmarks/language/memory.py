"""Memory of a language model of Llama shape with random weights: while it is converted, afterward, and as it decodes.

Each case runs in a process of its own. The checkpoint is written layer by layer, and removed at the end. "Private" is
memory that belongs to the process alone; weights of a file are mapped, and the system drops them when it needs room.
A case is stopped before the machine has no memory left. Writes benchmarks/language/memory.md.

    python benchmarks/language/memory.py [--shapes 1b 8b] [--folder FOLDER] [--leave GIB]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers
from safetensors.torch import save_file

import ohmformer as of
from ohmformer.nn.convert.stored_weights import stored_weights

SHAPES = {
    "tiny": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
             "intermediate_size": 1024, "vocab_size": 8192, "tie_word_embeddings": True},
    "1b": {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
           "intermediate_size": 8192, "vocab_size": 128256, "tie_word_embeddings": True},
    "8b": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
           "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False},
}  # fmt: skip
SHAPES["8b, 8 layers"] = SHAPES["8b"] | {"num_hidden_layers": 8}
"""Name on the command line -> sizes."""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "float32, in memory, kept": ("float32", {}),
    "float32, from the file, given up": ("float32", {"keep_original": False}),
    "bfloat16, from the file, given up": ("bfloat16", {"keep_original": False}),
    "bfloat16, half cells, in memory, kept": ("bfloat16", {"half_cells": True}),
    "bfloat16, half cells, from the file, given up": ("bfloat16", {"half_cells": True, "keep_original": False}),
}
"""Case -> type of the model, arguments of `convert`."""
SMALLEST = ["bfloat16, half cells, from the file, given up"]
LARGE = {"8b": SMALLEST, "8b, 8 layers": SMALLEST}
"""Shape -> the cases that are measured of it, where not all are."""
PROMPT, STEPS = 8, 4
"""Tokens of the prompt, and tokens that are decoded after it."""
LEAVE = 1.5
"""Available memory of the machine below which a case is stopped [GiB]."""


class Peak(threading.Thread):
    """The most private memory and the most memory with mapped files of this process, in bytes, since it began."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.private = self.all = 0
        self.start()

    def run(self) -> None:
        """Look again and again."""
        while True:
            self.look()
            time.sleep(0.02)

    def look(self) -> tuple[int, int]:
        """Private memory and all memory now."""
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        found = {name: 1024 * int(line.split()[1]) for line in lines for name in ("RssAnon", "VmRSS") if name in line}
        self.private, self.all = max(self.private, found["RssAnon"]), max(self.all, found["VmRSS"])
        return found["RssAnon"], found["VmRSS"]


def empty(shape: str, dtype: str) -> Any:
    """The model without values."""
    config = transformers.LlamaConfig(**SHAPES[shape], max_position_embeddings=4096)
    with accelerate.init_empty_weights():
        model = transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()
    model.tie_weights()
    return model


def write(shape: str, dtype: str, folder: Path) -> None:
    """Write random weights, one file for each layer, so that no two layers lie in memory at once."""
    model, files = empty(shape, dtype), dict[str, list[str]]()
    names = {id(parameter): name for name, parameter in reversed(list(model.named_parameters()))}
    shapes = {names[id(parameter)]: parameter.shape for parameter in model.parameters()}
    for name in shapes:
        files.setdefault(".".join(name.split(".")[:3]), []).append(name)
    generator, places = torch.Generator().manual_seed(0), dict[str, str]()
    for n, inside in enumerate(files.values()):
        weights = {}
        for name in inside:
            size = shapes[name]
            weight = torch.empty(size, dtype=getattr(torch, dtype)).normal_(0, 0.02, generator=generator)
            weights[name] = weight if len(size) > 1 else torch.ones_like(weight)
        save_file(weights, folder / f"part-{n}.safetensors")
        places |= dict.fromkeys(inside, f"part-{n}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")


def measure(shape: str, case: str, folder: str) -> dict[str, float]:
    """Convert a model and decode a few tokens with it; bytes, and seconds."""
    torch.set_num_threads(1)
    Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")  # no other program ends for want of memory
    dtype, options = CASES[case]
    model = empty(shape, dtype)
    size = sum(parameter.nbytes for parameter in model.parameters())
    vocabulary = SHAPES[shape]["vocab_size"]
    tokens = torch.randint(0, vocabulary, (1, PROMPT + STEPS), generator=torch.Generator().manual_seed(0))
    peak = Peak()
    before, _ = peak.look()
    hardware = of.load("clipformer_tcad_2024_per_value")
    sample = {"input_ids": tokens[:, :PROMPT]}
    if options.get("keep_original", True):
        with stored_weights(model, folder):
            for parameter in model.parameters():
                parameter.data = parameter.data.clone()
    else:
        options = {**options, "weights_from": folder}
    start = time.perf_counter()
    model = of.convert(model, hardware, sample=sample, level="noise", **options)
    times = [time.perf_counter() - start]
    with torch.inference_mode(), of.samples([0]):
        past = model(input_ids=tokens[:, :PROMPT], use_cache=True).past_key_values
        for n in range(PROMPT, PROMPT + STEPS):
            start = time.perf_counter()
            out = model(input_ids=tokens[:, n : n + 1], past_key_values=past)
            times.append(time.perf_counter() - start)
    assert bool(out.logits.isfinite().all())
    held, _ = peak.look()
    found = {"model": size, "held": held - before, "peak": peak.private - before, "all": peak.all}
    return {**found, "convert": times[0], "token": statistics.median(times[1:])}


def available() -> float:
    """Memory of the machine that programs may still take [GiB]."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**20


def watched(command: list[str], leave: float) -> dict[str, float] | None:
    """What a case in a process of its own prints; None if it was stopped, since the machine had too little memory left.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            if available() < leave:
                process.kill()
                return None
            time.sleep(0.1)
        assert process.stdout is not None
        printed = process.stdout.read()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    return found


def row(shape: str, case: str, found: dict[str, float] | None, leave: float) -> str:
    """The line of a case."""
    if found is None:
        return f"| {shape} | {case} | stopped: less than {leave} GiB were left | | | | | | |"
    gib = {name: found[name] / 2**30 for name in ("model", "peak", "held", "all")}
    times = f"{found['held'] / found['model']:.2f}"
    return (
        f"| {shape} | {case} | {gib['model']:.2f} | {gib['held']:.2f} | {times} | {gib['peak']:.2f} | "
        f"{gib['all']:.2f} | {found['convert']:.0f} | {found['token']:.2f} |"
    )


HEADING = (
    "| shape | case | model | private, decoding | times model | private, peak | with mapped files, peak | "
    "conversion, s | token, s |\n|---|---|--:|--:|--:|--:|--:|--:|--:|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["1b"])
    parser.add_argument("--cases", nargs="+", choices=list(CASES))
    parser.add_argument("--folder", type=Path, help="where the checkpoints are written; a temporary one by default")
    parser.add_argument("--leave", type=float, default=LEAVE, help="memory that is left to the machine [GiB]")
    parser.add_argument("--write", type=Path, default=Path(__file__).with_name("memory.md"))
    parser.add_argument("--measure", nargs=3, metavar=("SHAPE", "CASE", "FOLDER"), help="one case alone, as JSON")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    lines = [HEADING]
    for shape in options.shapes:
        cases = options.cases or LARGE.get(shape, list(CASES))
        for dtype in sorted({CASES[case][0] for case in cases}):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                write(shape, dtype, Path(folder))
                for case in (each for each in cases if CASES[each][0] == dtype):
                    command = [sys.executable, __file__, "--measure", shape, case, folder]
                    lines.append(row(shape, case, watched(command, options.leave), options.leave))
                    print(lines[-1], flush=True)
    text = (
        f"torch {torch.__version__}, transformers {transformers.__version__}, CPU, one thread. Level `noise`, K and "
        f"V in noisy cells, {PROMPT} + {STEPS} tokens through the cache. GiB.\n\n" + "\n".join(lines) + "\n"
    )
    options.write.write_text(f"# Memory of large models\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
