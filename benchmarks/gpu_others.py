"""Published times and rates of GPUs that neither fixed nor shaped the model, beside what it gives.

python benchmarks/gpu_others.py > benchmarks/gpu_others.md
"""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, log
from typing import NamedTuple

import ohmformer as of

MEANING = """Each source was read after the model was finished, and no field was changed. FasterTransformer 5:
its guide to BERT, column FT in FP16 (TensorFlow; the A10 with PyTorch). AITemplate: its example of BERT, without
embeddings. TensorRT-LLM: `performance.md` of version 0.5. AWQ (arXiv 2306.00978): its own kernels in FP16. Ratios below
0.74 are small batches of FasterTransformer, whose kernels are more and launch one by one, and three of the A10, of
which the board's power is probably the limit."""

A10 = {"peak": 125e12, "processors": 72, "bandwidth": 600e9, "memory": 24 * 2**30, "power": 150.0, "technology": 8.0}
RTX_4090 = {
    "peak": 165.2e12,
    "processors": 128,
    "bandwidth": 1008e9,
    "memory": 24 * 2**30,
    "power": 450.0,
    "technology": 5.0,
}
BATCHES = [(batch, tokens) for batch in (1, 8, 32) for tokens in (32, 128, 384)]
FASTER_TRANSFORMER = {
    "a100_sxm_40gb": [0.90, 1.00, 1.33, 1.04, 1.77, 4.39, 1.77, 4.81, 14.67],
    "t4": [1.92, 2.57, 3.85, 2.69, 8.31, 24.37, 8.40, 32.32, 97.66],
    "v100_sxm2_32gb": [1.13, 1.43, 2.12, 1.74, 3.59, 10.60, 3.55, 12.41, 40.20],
    "A10": [1.06, 1.02, 2.30, 1.54, 4.02, 10.91, 3.92, 15.30],
}
"""BERT-base in FP16: GPU -> milliseconds for `BATCHES`."""
AI_TEMPLATE = {(1, 64): 0.71, (8, 64): 0.95, (32, 64): 2.23, (128, 64): 8.00, (1, 128): 0.78, (8, 128): 1.43}
"""BERT-base in FP16 on an A100 40 GB: (batch, tokens) -> milliseconds."""
RATES = {
    ("a100_sxm_80gb", "llama-2-7b"): {(64, 128, 128): 3486, (32, 128, 2048): 1459, (32, 2048, 128): 529},
    ("h100_sxm_fp8", "llama-2-7b"): {(64, 128, 128): 9193, (64, 128, 2048): 5367, (64, 2048, 128): 2058},
    ("a100_sxm_80gb", "GPT-J"): {(64, 128, 128): 3679, (32, 2048, 128): 526, (16, 2048, 2048): 650},
    ("h100_sxm_fp8", "GPT-J"): {(64, 128, 128): 10907, (64, 2048, 128): 2229, (64, 2048, 2048): 2980},
    ("l40s_fp8", "GPT-J"): {(64, 128, 128): 3630, (64, 128, 2048): 1859, (32, 2048, 128): 616},
}
"""TensorRT-LLM 0.5: (GPU, model) -> (batch, prompt, generated) -> tokens per second."""
GPT_J = of.Transformer(
    title="GPT-J", kind="decoder", rotary=True, layers=28, width=4096, heads=16, hidden=16384, entries=50400,
    head=50400, max_tokens=4096, tokens=128,
)  # fmt: skip


class Row(NamedTuple):
    """A published figure and the model's: what, and both in the same unit."""

    what: str
    published: float
    modeled: float
    unit: str


def gpu(name: str) -> of.Accelerator:
    """A GPU of the library, or the A100 with another data sheet."""
    sheet = {"A10": A10, "RTX 4090": RTX_4090}.get(name)
    machine = of.load(name if sheet is None else "a100_sxm_40gb")
    for role in ("projection", "attention.key", "attention.value") if sheet else ():
        for field, value in (sheet or {}).items():
            machine = of.replace(machine, f"{role}.{field}", value)
    return machine


def rows() -> Iterator[Row]:
    """All figures."""
    for name, times in FASTER_TRANSFORMER.items():
        for (batch, tokens), time in zip(BATCHES, times, strict=False):
            found = of.simulate(of.shapes("bert-base", tokens=tokens, batch=batch), gpu(name)).latency
            yield Row(f"FasterTransformer, {name}: BERT-base, {tokens} tokens, batch {batch}", time, found * 1e3, "ms")
    for (batch, tokens), time in AI_TEMPLATE.items():
        found = of.simulate(of.shapes("bert-base", tokens=tokens, batch=batch), gpu("a100_sxm_40gb")).latency
        yield Row(f"AITemplate, a100_sxm_40gb: BERT-base, {tokens} tokens, batch {batch}", time, found * 1e3, "ms")
    for (name, model), figures in RATES.items():
        for (batch, prompt, generated), rate in figures.items():
            work = GPT_J if model == "GPT-J" else model
            served = of.serve(work, gpu(name), prompt=prompt, generate=generated, batch=batch)
            what = f"TensorRT-LLM, {name}: {model}, {batch} prompts of {prompt}, {generated} tokens each"
            yield Row(what, rate, served.output_tokens_per_s, "tokens/s")
    token = of.simulate(of.shapes("llama-2-7b", phase="decode", context=100), gpu("RTX 4090")).latency
    yield Row("AWQ, RTX 4090: one request of Llama-2-7B", 62, 1 / token, "tokens/s")


def main() -> None:
    """Print the table."""
    found = list(rows())
    ratios = [row.modeled / row.published for row in found]
    near = sum(1 / 1.35 <= ratio <= 1.35 for ratio in ratios)
    print("# GPUs: figures that were not used\n\n`python benchmarks/gpu_others.py > benchmarks/gpu_others.md`.\n")
    print("| figure | published | modeled | ratio |\n|---|---|---|---|")
    for row, ratio in zip(found, ratios, strict=True):
        print(f"| {row.what} | {row.published:g} {row.unit} | {row.modeled:.4g} {row.unit} | {ratio:.2f} |")
    mean = exp(sum(map(log, ratios)) / len(ratios))
    print(
        f"\n{near} of {len(found)} lie within 1.35 times; the geometric mean of the ratios is {mean:.2f}.\n\n{MEANING}"
    )


if __name__ == "__main__":
    main()
